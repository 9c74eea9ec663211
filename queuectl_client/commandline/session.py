"""What the command line says for all commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from queuectl_client.client import Client


class Session(NamedTuple):
    """The context object of every command.

    Attributes:
        socket: `--socket`; None where it was not given.
    """

    socket: Path | None = None

    def client(self, *, patience: float = 10.0, timeout: float | None = None) -> Client:
        """A client for the daemon that was asked for; nothing is opened yet."""
        from queuectl_client.client import Client  # noqa: PLC0415 - `--help` need not pay for the wire

        return Client(self.socket, patience=patience, timeout=timeout)


pass_session = click.make_pass_decorator(Session, ensure=True)
