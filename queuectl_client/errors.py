"""What can go wrong on this side of the socket. What the daemon refuses is a `ProtocolError`."""

from __future__ import annotations


class ClientError(Exception):
    """One sentence for a person, and what to do about it.

    Attributes:
        message: the sentence.
        hint: what to do about it, or "".
        exit_status: what the command exits with.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NoDaemon(ClientError):  # noqa: N818 - named after what is the matter
    """No daemon answers."""

    exit_status = 3


class WrongProtocol(ClientError):  # noqa: N818 - named after what is the matter
    """The daemon speaks another version of the protocol."""


class OutcomeUnknown(ClientError):  # noqa: N818 - named after what is the matter
    """The connection was lost after a request that must not be sent twice: it may have been carried out, or not."""


class BadRequest(ClientError):  # noqa: N818 - named after what is the matter
    """What was asked for can't be sent: the daemon was not asked."""

    exit_status = 2
