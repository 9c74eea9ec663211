"""Requests and replies by the standard library: what the direct way speaks.

The daemon speaks by the structs of queuectl_protocol, and looks at all that it is sent. Its answers are taken as they
come, and only from a daemon of this client's own version.
"""

from __future__ import annotations

from _json import encode_basestring

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.version import __version__

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from queuectl_client.wire.connection import Hello, Reply


class UnclearError(Exception):
    """An answer that is left to the structs to read."""


class Fields(dict[str, "Any"]):
    """A JSON object with its fields as attributes; one that is not there is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def encode(value: object) -> str:
    """JSON text, as msgspec writes it."""
    if isinstance(value, str):
        text: str = encode_basestring(value)
        return text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring(name)}:{encode(field)}" for name, field in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    return repr(value)


class _Reading:
    """What the scanner asks for; all of it is the json module's default but the first."""

    object_hook = Fields
    strict = True
    object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    """The scanner of the json module. The rest of that module is not needed, and takes as long as half of a start."""
    try:
        from _json import make_scanner  # noqa: PLC0415 - as it says

        scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Reading)  # type: ignore[arg-type]
    except (AttributeError, ImportError, TypeError):  # another version of it asks for more
        from json import JSONDecoder  # noqa: PLC0415 - as it says

        scan = JSONDecoder(object_hook=Fields).raw_decode
    return scan


_scan = _scanner()


def encode_request(method: str, params: Any, request_id: int) -> bytes:
    """One line."""
    text = encode({"jsonrpc": "2.0", "method": method, "params": params, "id": request_id})
    return f"{text}\n".encode()


def decode_reply(line: bytes) -> Reply:
    """Read one line.

    Raises:
        UnclearError: it is not a reply.
    """
    try:
        text = line.decode()
        reply, end = _scan(text, 0)
    except (StopIteration, ValueError, RecursionError):
        raise UnclearError from None
    if end != len(text) or not isinstance(reply, Fields) or reply.jsonrpc != "2.0":
        raise UnclearError
    if reply.error is not None:
        if not (isinstance(reply.error, Fields) and isinstance(reply.error.data, Fields)):
            raise UnclearError
        reply.error["data"] = Fields({"kind": "internal_error", "hint": "", **reply.error.data})
    return reply


def result_of(reply: Reply) -> Fields:
    """What the daemon answered.

    Raises:
        ProtocolError: it said no.
        UnclearError: it is not an object.
    """
    if reply.error is not None:
        raise ProtocolError(reply.error.data.kind, reply.error.message, reply.error.data.hint)
    if not isinstance(reply.result, Fields):
        raise UnclearError
    return reply.result


def read_hello(reply: Reply) -> Hello:
    """See `Hello`.

    Raises:
        UnclearError: it is a daemon of another version, or an error: both are for the structs to read.
    """
    hello = reply.result
    if reply.error is not None or not isinstance(hello, Fields) or hello.version != __version__:
        raise UnclearError
    return hello.protocol, hello.version, hello.pid, hello.started_at, hello.generation
