"""Lines to JSON-RPC envelopes, and back. No I/O: whoever owns a socket feeds bytes to `lines.Lines`.

JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one object a line, UTF-8; batches (arrays) are not used, since
requests can be pipelined.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from queuectl_protocol.errors import ProtocolError, short
from queuectl_protocol.jobs import JobState, Outcome
from queuectl_protocol.lines import MAX_LINE

S = TypeVar("S", bound=Struct)

MAX_TOLD = 4 * MAX_LINE
"""Bytes of a line to a worker. An attempt's lease is the job as it was enqueued, in a line of at most `MAX_LINE`, and
some fields more. No character takes more bytes in it than it took there: JSON must escape the same ones in both.
"""

MAX_ID = 128
"""Characters of a request's id."""


RequestId = int | str | None
"""What we send; what others may send is wider:"""
WireId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | Annotated[str, Meta(max_length=MAX_ID)] | None


class Request(Struct, frozen=True):
    """A request as it came, its parameters not looked at yet. `id` is UNSET for a notification.

    What a reply repeats is bounded, so that no request can ask for a reply of any length.
    """

    method: Annotated[str, Meta(max_length=128)]
    jsonrpc: str = ""
    id: WireId | UnsetType = UNSET
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
        raise ProtocolError("parse_error", _why_not_json(error, line)) from None
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
    except msgspec.ValidationError as error:
        raise ProtocolError("parse_error", f"the other side does not speak this protocol: {explain(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            "parse_error", f"the other side does not speak this protocol: {_why_not_json(error, line)}"
        ) from None


def decode_as(kind: type[S], raw: msgspec.Raw | UnsetType) -> S:
    """Read parameters or a result as `kind`; nothing stands for an empty object.

    Raises:
        ProtocolError: `invalid_params`, its message names the field.
    """
    decoder = _param_decoders.get(kind)
    if decoder is None:
        decoder = _param_decoders[kind] = msgspec.json.Decoder(kind)
    text = b"{}" if isinstance(raw, UnsetType) else bytes(raw)
    try:
        value: S = decoder.decode(text)
    except msgspec.ValidationError as error:
        raise ProtocolError("invalid_params", explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("parse_error", _why_not_json(error, text)) from None
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


# Patterns that only refusals need are compiled by the first one: a client starts a fifteenth of its time sooner.
_HALF_SURROGATE = rb"\\u[dD][89a-fA-F]"


def _why_not_json(error: Exception, line: bytes) -> str:
    """The parser's complaint as a sentence for a person."""
    if isinstance(error, RecursionError):
        return "not JSON that is accepted here: it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not JSON: it is not UTF-8"
    if not line.strip():
        return "not JSON: the line is empty"
    what = str(error).removeprefix("JSON is malformed: ")
    if what == "Input data was truncated":
        # msgspec says this too where a string ends after the first half of a surrogate pair.
        half = re.search(_HALF_SURROGATE, line) is not None
        what = "a `\\u` escape is half of a surrogate pair" if half else "it ends too early"
    return f"not JSON: {what}"


_PLACE = r"(?:key` in `)?\$\.?(?P<path>[\w.\[\]]*)`"
"""What msgspec puts behind " - at `": names of our own fields and indices, never anything that came over the wire."""

_EXPECTED = r"(?s:Expected `(?P<types>[^`]*)`(?P<rest>.*))"
_UNKNOWN = "Object contains unknown field `"
_MISSING = "Object missing required field `"
_BOUND = r" (?P<length>of length )?(?P<sign><=|>=|<|>) (?P<number>-?[0-9.e+]+)"
_TYPES = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false",
          "array": "an array", "object": "an object", "null": "null"}  # fmt: skip
PATTERNS = {
    r"\A[A-Za-z0-9._-]+\Z": "letters, digits, `.`, `_` and `-`",
    r"\A[a-z0-9-]+\Z": "lowercase letters, digits and `-`",
}
"""Every pattern that a field of the wire has, in words."""
_WORDS: dict[str, list[str]] = {"state": [*JobState], "outcome": [*Outcome]}
"""Fields that hold one of a few words."""


def explain(error: msgspec.ValidationError) -> str:
    """A message of msgspec as a sentence for a person, the field first.

    For example "`jobs[0].priority`: expected a whole number, got a string".
    What it repeats of the input is cut to a length that a person reads; control characters come out escaped.
    """
    what, separator, tail = str(error).rpartition(" - at `")
    place = re.fullmatch(_PLACE, tail) if separator else None
    if place is None or (what.startswith(_UNKNOWN) and not what.endswith("`")):  # that was a part of the field's name
        return _plainly(str(error), "")
    where = place["path"]
    what = _plainly(what, where)
    return f"`{where}`: {what}" if where else what


def _plainly(what: str, where: str) -> str:
    """A message of msgspec, its place cut off, in the words of the reference; our own messages as they are."""
    if expected := re.fullmatch(_EXPECTED, what):
        return _expectation(expected["types"].split(" | "), expected["rest"])
    for beginning, plain in ((_UNKNOWN, "unknown field"), (_MISSING, "missing field")):
        if what.startswith(beginning):
            return f"{plain} `{short(what[len(beginning) : -1])}`"
    if what.startswith("Invalid enum value "):
        given = short(what.removeprefix("Invalid enum value ")[1:-1])  # without its quotes
        words = _WORDS.get(where.rpartition(".")[2])
        return f"`{given}` is none of {', '.join(words)}" if words else f"`{given}` is none of the words allowed here"
    if what in {"Number out of range", "Integer value out of range"}:
        return "the number is out of range"
    return what


def _expectation(types: list[str], rest: str) -> str:
    """From "Expected `types` ..." of msgspec, what follows the types in `rest`."""
    if "int" in types and "float" in types:
        types = [name for name in types if name != "int"]  # "a number" says it
    if bound := re.fullmatch(_BOUND, rest):
        number = bound["number"].removesuffix(".0")
        limit = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[bound["sign"]]
        if not bound["length"]:
            return f"expected {_TYPES.get(types[0], types[0])}, {limit} {number}"
        if number == "1" and limit == "at least":
            return "must not be empty"
        return f"expected {limit} {number} {'characters' if types[0] == 'str' else 'items'}"
    if rest.startswith(" matching regex "):
        shown = rest.removeprefix(" matching regex ")
        allowed = next((words for pattern, words in PATTERNS.items() if repr(pattern) == shown), None)
        return f"may hold only {allowed}" if allowed else f"must match {shown}"
    expected = " or ".join(_TYPES.get(name, name) for name in types)
    got = rest.removeprefix(", got `").removesuffix("`")
    if got == "float" and "int" in types:
        return f"expected {expected}, got one with a point or an exponent"
    return f"expected {expected}, got {_TYPES.get(got, got)}" if got else f"expected {expected}"
