"""Every way in which the daemon can say no: one table of kinds, one exception."""

from __future__ import annotations


class ErrorKind:
    """One kind of refusal.

    Attributes:
        word: the stable word in `error.data.kind`; programs decide by it.
        code: the JSON-RPC code: those of the standard where it has one, else -32001 and below.
        meaning: one sentence for the reference.
    """

    __slots__ = ("code", "meaning", "word")

    def __init__(self, word: str, code: int, meaning: str) -> None:
        self.word = word
        self.code = code
        self.meaning = meaning


KINDS: dict[str, ErrorKind] = {
    kind.word: kind
    for kind in (
        ErrorKind("parse_error", -32700, "The line is not JSON."),
        ErrorKind("invalid_request", -32600, "The line is JSON, but not a JSON-RPC 2.0 request."),
        ErrorKind("method_not_found", -32601, "There is no such method."),
        ErrorKind("invalid_params", -32602, "A parameter is missing, unknown, of the wrong type or out of range."),
        ErrorKind("internal_error", -32603, "A fault in the daemon itself; it is in its log."),
        ErrorKind("not_found", -32001, "No such job, attempt, worker or setting."),
        ErrorKind("conflict", -32002, "It contradicts what is there: an id used for other content, a late result."),
        ErrorKind("invalid_state", -32003, "The job's state does not allow it."),
        ErrorKind("too_large", -32004, "The line is longer than the limit."),
        ErrorKind(
            "busy",
            -32005,
            "Too much at once, or another program has locked the database; nothing was changed, try again.",
        ),
        ErrorKind("forbidden", -32006, "The peer may not connect, or may not call this method."),
        ErrorKind("shutting_down", -32007, "The daemon is stopping and takes nothing new."),
        ErrorKind("storage_full", -32008, "The disk is (nearly) full; nothing was changed."),
        ErrorKind("storage_failed", -32009, "The disk failed; whether the change is there is unknown until a restart."),
        ErrorKind("unavailable", -32010, "The store can't be reached now; nothing was changed, try again later."),
    )
}


class ProtocolError(Exception):
    """A refusal as it travels: raised by the daemon's code, and again by the client that receives it.

    Attributes:
        kind: a key of KINDS.
        message: one sentence for a person.
        hint: what to do about it, or "".
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    @property
    def code(self) -> int:
        return KINDS[self.kind].code if self.kind in KINDS else KINDS["internal_error"].code


MAX_ERROR = 500
"""Characters of what is kept of why an attempt failed. It can hold a path of 128 KiB, again with each attempt."""


def cut(text: str) -> str:
    """`text` if it has at most MAX_ERROR characters, else its beginning and its end."""
    if len(text) <= MAX_ERROR:
        return text
    half = (MAX_ERROR - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def short(text: str) -> str:
    """`text` for use in a message: at most 64 characters, control characters escaped."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:65])
    return plain if len(plain) <= 64 else plain[:63] + "…"
