"""What the command line says for all commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from queuectl_client.wire.link import PATIENCE

if TYPE_CHECKING:
    from queuectl_client.client import Client


class Session(NamedTuple):
    """The context object of every command.

    Attributes:
        socket: `--socket`; None where it was not given.
    """

    socket: Path | None = None

    def client(self, *, patience: float = PATIENCE, timeout: float | None = None) -> Client:
        """A client for the daemon that was asked for; nothing is opened yet."""
        from queuectl_client.client import Client  # noqa: PLC0415 - `--help` need not pay for the wire

        return Client(self.socket, patience=patience, timeout=timeout)


pass_session = click.make_pass_decorator(Session, ensure=True)


def json_printer(as_json: bool) -> Callable[[object], None] | None:
    """What prints an answer as JSON, where that is asked for."""
    if not as_json:
        return None
    from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

    return print_json
