"""Requests and replies as the structs of queuectl_protocol: what `Client` speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from queuectl_protocol import framing
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.framing import decode_as, encode_request

__all__ = ["decode_reply", "encode_request", "read_hello", "result_of"]

if TYPE_CHECKING:
    from queuectl_client.wire.connection import Hello, Reply

S = TypeVar("S", bound=Struct)


class _Hello(Struct, frozen=True):
    protocol: int = 0
    version: str = "unknown"
    pid: int = 0
    started_at: str = ""
    generation: int = 0


def decode_reply(line: bytes) -> Reply:
    """As `framing.decode_reply`."""
    return framing.decode_reply(line)


def read_hello(reply: Reply) -> Hello:
    """See `Hello`.

    Raises:
        ProtocolError: as `result_of`.
    """
    hello = result_of(reply, _Hello)
    return hello.protocol, hello.version, hello.pid, hello.started_at, hello.generation


def result_of(reply: Reply, kind: type[S]) -> S:
    """What the daemon answered.

    Raises:
        ProtocolError: it said no, or answers in another shape.
    """
    if reply.error is not None:
        raise ProtocolError(reply.error.data.kind, reply.error.message, reply.error.data.hint)
    try:
        return decode_as(kind, reply.result)
    except ProtocolError as error:
        # Not what was typed is wrong, as `invalid_params` would say, but what came back.
        raise ProtocolError("internal_error", f"the daemon's answer can't be read: {error.message}") from None
