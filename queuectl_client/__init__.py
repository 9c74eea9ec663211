"""The client side of queuectl: the `queuectl` command, and `Client` for use from Python programs.

from queuectl_client import Client

with Client() as client:
    job = client.enqueue(command="make test", timeout=600)
    print(client.wait([job]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_client.errors import ClientError, NoDaemon
    from queuectl_protocol.errors import ProtocolError

__all__ = ["Client", "ClientError", "NoDaemon", "ProtocolError"]


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and `queuectl --help` need not pay for the wire.
    if name == "Client":
        from queuectl_client.client import Client  # noqa: PLC0415 - as above

        return Client
    if name in {"ClientError", "NoDaemon"}:
        from queuectl_client import errors  # noqa: PLC0415 - as above

        return getattr(errors, name)
    if name == "ProtocolError":
        from queuectl_protocol.errors import ProtocolError  # noqa: PLC0415 - as above

        return ProtocolError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
