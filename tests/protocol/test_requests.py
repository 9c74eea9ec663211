"""Lines to requests and replies: what is taken, and how everything else is refused."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.framing import decode_as, decode_reply, decode_request, encode_error, encode_result
from queuectl_protocol.messages import METHODS, JobGetParams

NESTED = b"[" * 200_000 + b"]" * 200_000


def request_line(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "m", **members}).encode()


def refusal(line: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_request(line)
    return caught.value


@pytest.mark.parametrize(
    "request_id", [0, 1, -1, 2**63 - 1, -(2**63), 1.5, 1e300, "", "a", "x" * 128, "\U0001f600", "\0", None]
)
def test_ids_come_back_as_they_were(request_id: float | str | None) -> None:
    request = decode_request(request_line(id=request_id))
    assert request.id == request_id
    assert type(request.id) is type(request_id)
    for reply in (encode_result(request.id, {}), encode_error(request.id, ProtocolError("busy", "later"))):
        assert reply.endswith(b"\n")
        assert json.loads(reply)["id"] == request_id
        assert decode_reply(reply[:-1]).id == request_id


def test_without_an_id_it_is_a_notification() -> None:
    assert decode_request(request_line()).id is UNSET
    assert decode_request(request_line(id=None)).id is None


@pytest.mark.parametrize(
    "request_id",
    ["true", "[]", "{}", "[1]", "1e999", "9223372036854775808", "9" * 400, "9" * 5000, json.dumps("x" * 129)],
    ids=lambda text: text[:20],
)
def test_ids_that_are_none(request_id: str) -> None:
    error = refusal(b'{"jsonrpc":"2.0","method":"m","id":%s}' % request_id.encode())
    assert error.kind == "invalid_request"
    assert error.message.startswith("not a JSON-RPC request: `id`: ")
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON: the line is empty"),
        (b" \r", "not JSON: the line is empty"),
        (b"{", "not JSON: it ends too early"),
        (b'{"jsonrpc":"2.0","method":"m', "not JSON: it ends too early"),
        (b"hello", "not JSON: invalid character (byte 0)"),
        (b"GET / HTTP/1.1", "not JSON: invalid character (byte 0)"),
        (b"\x00\x01\xff", "not JSON: invalid character (byte 0)"),
        (b"\xef\xbb\xbf{}", "not JSON: invalid character (byte 0)"),
        (b'{"jsonrpc":"2.0","method":"m",}', "not JSON: trailing comma in object (byte 30)"),
        (b'{"jsonrpc":"2.0","method":"m"}{}', None),
        (b"{'jsonrpc':'2.0'}", None),
        (b'{"jsonrpc":"2.0","method":"m","id":NaN}', None),
        (b'{"jsonrpc":"2.0","method":"m","id":Infinity}', None),
        (b'{"jsonrpc":"2.0","method":"m","params":{"value":NaN}}', None),
        (b'{"jsonrpc":"2.0","method":"m","params":nul}', None),
        (b'{"jsonrpc":"2.0","method":"\xff"}', "not JSON: it is not UTF-8"),
        (b'{"jsonrpc":"2.0","method":"\xed\xa0\x80"}', "not JSON: it is not UTF-8"),
        (b'{"jsonrpc":"2.0","method":"\\ud800"}', "not JSON: a `\\u` escape is half of a surrogate pair"),
        (b'{"jsonrpc":"2.0","method":"\\ude00\\ud83d"}', None),
        (NESTED, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_not_json(line: bytes, message: str | None) -> None:
    error = refusal(line)
    if line is NESTED:  # an array is refused before anybody looks into it
        assert error.kind == "invalid_request"
        return
    assert error.kind == "parse_error"
    assert error.message.startswith("not JSON")
    if message is not None:
        assert error.message == message


@pytest.mark.parametrize("member", [b"params", b"else"])
@pytest.mark.parametrize("depth", [1000, 100_000, 520_000])
def test_deep_nesting_is_taken_or_refused_and_no_crash(member: bytes, depth: int) -> None:
    """How much is too deep differs between versions of Python; the longest line has room for the deepest of these."""
    line = b'{"jsonrpc":"2.0","method":"m","%s":' % member + b"[" * depth + b"]" * depth + b"}"
    try:
        request = decode_request(line)
        decode_as(JobGetParams, request.params)
        said = ""
    except ProtocolError as error:
        said = error.message
    assert said in {
        "not JSON that is accepted here: it is nested too deeply",
        "expected an object, got an array",  # params
        "missing field `id`",  # else
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[]", "expected an object, got an array"),
        (b'[{"jsonrpc":"2.0","method":"m","id":1}]', "expected an object, got an array"),
        (b"1", "expected an object, got a whole number"),
        (b"-1.5", "expected an object, got a number"),
        (b"null", "expected an object, got null"),
        (b"true", "expected an object, got true or false"),
        (b'"m"', "expected an object, got a string"),
        (b"{}", "missing field `method`"),
        (b'{"jsonrpc":"2.0"}', "missing field `method`"),
        (b'{"method":"m","id":1}', '`"jsonrpc": "2.0"` is missing'),
        (b'{"jsonrpc":"1.0","method":"m"}', '`"jsonrpc": "2.0"` is missing'),
        (b'{"jsonrpc":2.0,"method":"m"}', "`jsonrpc`: expected a string, got a number"),
        (b'{"jsonrpc":null,"method":"m"}', "`jsonrpc`: expected a string, got null"),
        (b'{"jsonrpc":"2.0","method":1}', "`method`: expected a string, got a whole number"),
        (b'{"jsonrpc":"2.0","method":null}', "`method`: expected a string, got null"),
        (b'{"jsonrpc":"2.0","method":"' + b"m" * 129 + b'"}', "`method`: expected at most 128 characters"),
        (b'{"jsonrpc":"2.0","method":"m","id":[]}', "`id`: expected a number or a string or null, got an array"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json_but_no_request(line: bytes, message: str) -> None:
    error = refusal(line)
    assert error.kind == "invalid_request"
    assert error.message == f"not a JSON-RPC request: {message}"


def test_other_members_are_passed_over() -> None:
    assert decode_request(request_line(id=1, trace={"a": [1]}, auth=None)).id == 1


def test_of_a_member_that_comes_twice_the_last_one_counts() -> None:
    """As in Python's and JavaScript's own parsers; what matters is that every reader of a line sees the same."""
    request = decode_request(
        b'{"jsonrpc":"2.0","method":"a","method":"b","id":1,"id":2,"params":{"id":"x"},"params":{"id":"y"}}'
    )
    assert (request.method, request.id) == ("b", 2)
    assert decode_as(JobGetParams, request.params) == JobGetParams(id="y")


def test_white_space_and_a_carriage_return_do_no_harm() -> None:
    assert decode_request(b' {"jsonrpc" : "2.0",\t"method":"m" } \r').method == "m"


@settings(deadline=None)
@given(line=st.binary(max_size=200))
def test_whatever_comes_is_a_request_or_a_refusal(line: bytes) -> None:
    try:
        decode_request(line)
    except ProtocolError as error:
        encode_error(None, error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(members=st.dictionaries(st.sampled_from(["jsonrpc", "method", "id", "params", "x"]), json_values))
def test_any_json_is_a_request_or_a_refusal(members: dict[str, object]) -> None:
    try:
        request = decode_request(json.dumps({"jsonrpc": "2.0", "method": "m", **members}).encode())
        decode_as(JobGetParams, request.params)
    except ProtocolError as error:
        encode_error(None, error)


# --- parameters -----------------------------------------------------------------------------------------------------


def params_refusal(method: str, params: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_as(METHODS[method].params, msgspec.Raw(params))
    return caught.value


@pytest.mark.parametrize("params", [b"[]", b"null", b"1", b'"x"', b"true", b'["job1"]'])
@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_an_object(method: str, params: bytes) -> None:
    error = params_refusal(method, params)
    assert error.kind == "invalid_params"
    assert error.message.startswith("expected an object, got ")


@pytest.mark.parametrize("method", METHODS)
def test_no_parameters_stand_for_an_empty_object(method: str) -> None:
    required = {field.name for field in msgspec.structs.fields(METHODS[method].params) if field.required}
    if required or method in {"dlq.retry", "dlq.purge"}:
        assert params_refusal(method, b"{}").kind == "invalid_params"
        with pytest.raises(ProtocolError, match=r"missing field|give either"):
            decode_as(METHODS[method].params, UNSET)
    else:
        assert decode_as(METHODS[method].params, UNSET) == decode_as(METHODS[method].params, msgspec.Raw(b"{}"))


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("job.get", "{}", "missing field `id`"),
        ("job.get", '{"id":""}', "`id`: must not be empty"),
        ("job.get", '{"id":5}', "`id`: expected a string, got a whole number"),
        ("job.get", '{"id":"a","nev":true}', "unknown field `nev`"),
        ("job.get", '{"id":"a","int":1}', "unknown field `int`"),
        ("job.get", '{"id":"a","a | b":1}', "unknown field `a | b`"),
        ("job.get", '{"id":"a","\\u001b[31m":1}', "unknown field `\\x1b[31m`"),
        ("job.get", '{"id":"a","x - at `$.y":1}', "unknown field `x - at `$.y`"),
        ("job.get", json.dumps({"id": "a", "k" * 900_000: 1}), "unknown field `" + "k" * 63 + "…`"),
        ("job.list", '{"state":"waiting"}',
         "`state`: `waiting` is none of pending, processing, completed, failed, dead, cancelled"),
        ("job.list", '{"state":7}', "`state`: expected a string or null, got a whole number"),
        ("job.list", json.dumps({"state": "'\x1b" + "s" * 900_000}),
         "`state`: `'\\x1b" + "s" * 58 + "…` is none of pending, processing, completed, failed, dead, cancelled"),
        ("job.list", '{"limit":0}', "`limit`: expected a whole number, at least 1"),
        ("job.list", '{"limit":1001}', "`limit`: expected a whole number, at most 1000"),
        ("job.list", '{"limit":2.0}', "`limit`: expected a whole number, got one with a point or an exponent"),
        ("job.list", '{"limit":1e999}', "`limit`: the number is out of range"),
        ("job.cancel", '{"ids":[]}', "`ids`: must not be empty"),
        ("job.cancel", '{"ids":"a"}', "`ids`: expected an array, got a string"),
        ("job.cancel", '{"ids":["a",null]}', "`ids[1]`: expected a string, got null"),
        ("job.cancel", json.dumps({"ids": ["a"] * 10_001}), "`ids`: expected at most 10000 items"),
        ("job.wait", '{"ids":["a"],"timeout":-1}', "`timeout`: expected a number, at least 0"),
        ("job.logs", '{"id":"a","offset":9223372036854775808}',
         "`offset`: expected a whole number, at most 9223372036854775807"),
        ("job.logs", '{"id":"a","attempt":0}', "`attempt`: expected a whole number, at least 1"),
        ("dlq.retry", "{}", "give either `ids` or `all`"),
        ("dlq.purge", '{"ids":["a"],"all":true}', "give either `ids` or `all`"),
        ("dlq.purge", '{"all":"yes"}', "`all`: expected true or false, got a string"),
        ("config.set", '{"key":"a"}', "missing field `value`"),
        ("config.set", '{"key":"a","value":null}', "`value`: expected a number or a string, got null"),
        ("config.set", '{"key":"a","value":true}', "`value`: expected a number or a string, got true or false"),
        ("config.set", json.dumps({"key": "a", "value": "9" * 65}), "`value`: expected at most 64 characters"),
        ("worker.start", '{"count":-1}', "`count`: expected a whole number, at least 1"),
        ("worker.start", '{"count":18446744073709551616}', "`count`: expected a whole number, at most 4096"),
        ("worker.stop", '{"ids":[]}', "`ids`: must not be empty"),
        ("worker.stop", '{"ids":["W1"]}', "`ids[0]`: may hold only lowercase letters, digits and `-`"),
        ("worker.finish", '{"ended":{"job":1}}', "`ended`: missing field `attempt`"),
        ("job.enqueue", '{"jobs":[{"command":"a"},{"command":"b","id":"a b"}]}',
         "`jobs[1].id`: may hold only letters, digits, `.`, `_` and `-`"),
        ("job.enqueue", '{"jobs":{}}', "`jobs`: expected an array, got an object"),
    ],
    ids=lambda value: value[:50],
)  # fmt: skip
def test_a_bad_parameter_is_named(method: str, params: str, message: str) -> None:
    error = params_refusal(method, params.encode())
    assert error.kind == "invalid_params"
    assert error.message == message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (b'{"id":"\xff"}', "not JSON: it is not UTF-8"),
        (b'{"id":"\xed\xa0\x80"}', "not JSON: it is not UTF-8"),
        (b'{"id":"\\ud800"}', "not JSON: a `\\u` escape is half of a surrogate pair"),
    ],
)
def test_text_that_is_none_is_found_in_parameters_too(params: bytes, message: str) -> None:
    """The parameters of a request are looked at later than the rest of it."""
    line = b'{"jsonrpc":"2.0","method":"job.get","params":%s}' % params
    with pytest.raises(ProtocolError) as caught:
        decode_as(JobGetParams, decode_request(line).params)
    assert (caught.value.kind, caught.value.message) == ("parse_error", message)


def test_a_whole_surrogate_pair_is_text() -> None:
    assert decode_as(JobGetParams, msgspec.Raw(b'{"id":"\\ud83d\\ude00"}')).id == "\U0001f600"


def test_no_refusal_takes_long_or_repeats_its_input() -> None:
    """Whatever fills a line: a message is short, and made in a moment (a quadratic search would take minutes)."""
    started = time.process_time()
    for text in (" - at `$", "`", "key` in `$.", "Expected `int`, got `", "\\u001b"):
        key = json.dumps(text)[1:-1] * (900_000 // len(text) if text != "\\u001b" else 100_000)
        for params in (f'{{"id":"a","{key}":1}}', f'{{"jobs":[{{"command":"a","{key}":1}}]}}', f'{{"state":"{key}"}}'):
            method = "job.get" if "id" in params[:5] else "job.enqueue" if "jobs" in params[:8] else "job.list"
            assert len(params_refusal(method, params.encode()).message) < 1000
    assert time.process_time() - started < 30


# --- replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"\xff", b'{"error":5}', b'{"error":{}}', b'{"id":[]}', NESTED])
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_reply(line)
    assert caught.value.kind == "parse_error"
    assert caught.value.message.startswith("the other side does not speak this protocol: ")


def test_an_error_of_another_program_needs_no_data() -> None:
    error = decode_reply(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}').error
    assert error is not None
    assert (error.data.kind, error.data.hint) == ("internal_error", "")


def test_an_error_arrives_whole() -> None:
    error = decode_reply(encode_error(7, ProtocolError("not_found", "no job `x`", "look again"))).error
    assert error is not None
    assert (error.code, error.message, error.data.kind, error.data.hint) == (
        -32001,
        "no job `x`",
        "not_found",
        "look again",
    )


def test_an_empty_hint_is_left_out() -> None:
    assert json.loads(encode_error(1, ProtocolError("busy", "later")))["error"]["data"] == {"kind": "busy"}
