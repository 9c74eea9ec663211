"""Bytes to lines, lines to JSON-RPC envelopes, and back. No I/O: whoever owns a socket feeds bytes in.

JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one object a line, UTF-8; batches (arrays) are not used, since
requests can be pipelined.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from protocol.errors import KINDS, ProtocolError

S = TypeVar("S", bound=Struct)

MAX_LINE = 1024 * 1024
"""Bytes of a line, its newline not counted."""


class Lines:
    """Cuts a stream of bytes into lines, with bounded memory.

    A line longer than the limit is dropped as it comes and yields None in its place; what follows it is read as usual.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that `data` completes, without their newlines; None for one that was too long.

        The None comes when the limit is passed, not when the line ends: a peer that never ends its line gets its answer.
        """
        lines: list[bytes | None] = []
        pieces = data.split(b"\n")
        for piece in pieces[:-1]:
            self._add(piece, lines)
            if not self._dropping:
                lines.append(b"".join(self._parts))
            self._parts, self._size, self._dropping = [], 0, False
        self._add(pieces[-1], lines)
        return lines

    def _add(self, piece: bytes, lines: list[bytes | None]) -> None:
        if self._dropping or not piece:
            return
        self._size += len(piece)
        if self._size > self._limit:
            self._parts, self._dropping = [], True
            lines.append(None)
        else:
            self._parts.append(piece)

    @property
    def rest(self) -> bytes:
        """The beginning of a line that is not complete yet."""
        return b"".join(self._parts)


RequestId = int | str | None


class Request(Struct, frozen=True):
    """A request as it came, its parameters not looked at yet. `id` is UNSET for a notification."""

    method: str
    jsonrpc: str = ""
    id: int | float | str | None | UnsetType = UNSET
    params: msgspec.Raw | UnsetType = UNSET


class WireErrorData(Struct, frozen=True):
    kind: str = "internal_error"
    hint: str = ""


class WireError(Struct, frozen=True):
    code: int
    message: str
    data: WireErrorData = WireErrorData()


class Reply(Struct, frozen=True):
    """A reply, or a notification of the daemon's (`method` is set), as a client reads it."""

    jsonrpc: str = ""
    id: int | float | str | None = None
    result: msgspec.Raw | UnsetType = UNSET
    error: WireError | None = None
    method: str | None = None
    params: msgspec.Raw | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(Request)
_reply_decoder = msgspec.json.Decoder(Reply)
_any_decoder = msgspec.json.Decoder()
_param_decoders: dict[type[Struct], msgspec.json.Decoder[Any]] = {}


def decode_request(line: bytes) -> Request:
    """Read one line from a client.

    Raises:
        ProtocolError: `parse_error` or `invalid_request`.
    """
    try:
        request = _request_decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ProtocolError("invalid_request", f"not a JSON-RPC request: {explain(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("parse_error", f"not JSON: {error}") from None
    if request.jsonrpc != "2.0":
        raise ProtocolError("invalid_request", 'not a JSON-RPC request: `"jsonrpc": "2.0"` is missing')
    return request


def decode_reply(line: bytes) -> Reply:
    """Read one line from a daemon.

    Raises:
        ProtocolError: `parse_error` where it is not a reply.
    """
    try:
        return _reply_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("parse_error", f"the other side does not speak this protocol: {error}") from None


def decode_as(kind: type[S], raw: msgspec.Raw | UnsetType) -> S:
    """Read parameters or a result as `kind`; nothing stands for an empty object.

    Raises:
        ProtocolError: `invalid_params`, its message names the field.
    """
    decoder = _param_decoders.get(kind)
    if decoder is None:
        decoder = _param_decoders[kind] = msgspec.json.Decoder(kind)
    try:
        value: S = decoder.decode(b"{}" if raw is UNSET else raw)
    except msgspec.ValidationError as error:
        raise ProtocolError("invalid_params", explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("parse_error", f"not JSON: {error}") from None
    return value


def encode_request(method: str, params: Struct, request_id: RequestId = None) -> bytes:
    """One line that asks for `method`; without an id it is a notification."""
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id is not None:
        message["id"] = request_id
    return _encoder.encode(message) + b"\n"


def encode_result(request_id: object, result: object) -> bytes:
    return _encoder.encode({"jsonrpc": "2.0", "id": request_id, "result": result}) + b"\n"


def encode_error(request_id: object, error: ProtocolError) -> bytes:
    data = {"kind": error.kind, "hint": error.hint} if error.hint else {"kind": error.kind}
    body = {"code": error.code, "message": error.message, "data": data}
    return _encoder.encode({"jsonrpc": "2.0", "id": request_id, "error": body}) + b"\n"


_PLACE = re.compile(r"(?P<what>.*?)(?: - at `(?P<where>(?:key in )?\$.*)`)?", re.DOTALL)
_TYPES = {"`int`": "a whole number", "`float`": "a number", "`str`": "a string", "`bool`": "true or false",
          "`array`": "an array", "`object`": "an object", "`null`": "null"}  # fmt: skip


def explain(error: msgspec.ValidationError) -> str:
    """msgspec's message as a sentence for a person, the field first: "`jobs[0].priority`: expected a whole number, got a string"."""
    found = _PLACE.fullmatch(str(error))
    if found is None:  # pragma: no cover - the pattern takes any text
        return str(error)
    what, where = found["what"], (found["where"] or "").replace("$.", "").replace("$", "")
    for word, plain in _TYPES.items():
        what = what.replace(word, plain)
    what = re.sub(r"expected a string matching regex .*", "may hold only letters, digits, `.`, `_` and `-`", what[:1].lower() + what[1:])
    what = what.replace(" | ", " or ").replace("object contains", "there is").replace("object missing required", "missing")
    return f"`{where}`: {what}" if where else what
