"""Every method's parameters and result, there and back, and the tables that name them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import inspect as introspect

from queuectl_protocol.errors import KINDS, ProtocolError
from queuectl_protocol.framing import PATTERNS, decode_as, decode_reply, decode_request, encode_request, encode_result
from queuectl_protocol.jobs import JobSpec, JobState
from queuectl_protocol.messages import METHODS, NOTIFICATIONS, DlqPurgeParams, DlqRetryParams
from tests.protocol.transcript import differences

RESULTS = {name: method.result for name, method in METHODS.items() if method.result is not None}
CHOICES: dict[type, set[str]] = {JobSpec: {"argv"}, DlqRetryParams: {"all"}, DlqPurgeParams: {"all"}}
"""Fields that exclude another one: left out where all fields are given."""
NEWER = {"of_a_newer_version": {"deep": [1, None]}}


def sample(info: introspect.Type, *, full: bool, extra: bool = False) -> Any:
    """JSON data of this type: every field or only the required ones, `extra` adds unknown fields to each object."""

    def inner(part: introspect.Type) -> Any:
        return sample(part, full=full, extra=extra)

    match info:
        case introspect.StructType(cls=cls, fields=fields):
            wanted = [f for f in fields if (f.required or full) and f.encode_name not in CHOICES.get(cls, ())]
            found = {f.encode_name: inner(f.type) for f in wanted}
            if cls is JobSpec:
                found["command"] = "true"
            elif cls in CHOICES:
                found["ids"] = ["job1"]
            return found | (NEWER if extra else {})
        case introspect.UnionType(types=types):
            return inner(next(part for part in types if not isinstance(part, introspect.NoneType)))
        case introspect.ListType(item_type=item):
            return [inner(item)]
        case introspect.DictType(key_type=key, value_type=value):
            return {inner(key): inner(value)}
        case introspect.IntType(ge=low):
            return max(low or 0, 7)
        case introspect.FloatType(ge=low):
            return max(low or 0, 7.5)
        case introspect.BoolType():
            return True
        case introspect.StrType():
            return "/a1" if info.pattern is None else "a1"
        case introspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case introspect.DateTimeType():
            return "2025-01-31T12:34:56.789000Z"
        case _:
            raise AssertionError(f"no sample for {info}")


def raw(data: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(data).encode())


@pytest.mark.parametrize("full", [False, True], ids=["least", "full"])
@pytest.mark.parametrize("name", METHODS)
def test_parameters_come_back_as_they_were_sent(name: str, *, full: bool) -> None:
    kind = METHODS[name].params
    data = sample(introspect.type_info(kind), full=full)
    params = decode_as(kind, raw(data))
    line = encode_request(name, params, "id-1")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    request = decode_request(line[:-1])
    assert (request.jsonrpc, request.method, request.id) == ("2.0", name, "id-1")
    assert decode_as(kind, request.params) == params
    assert not differences(data, json.loads(line)["params"])


@pytest.mark.parametrize("full", [False, True], ids=["least", "full"])
@pytest.mark.parametrize("name", RESULTS)
def test_results_come_back_as_they_were_sent(name: str, *, full: bool) -> None:
    kind = RESULTS[name]
    data = sample(introspect.type_info(kind), full=full)
    result = decode_as(kind, raw(data))
    line = encode_result(9, result)
    reply = decode_reply(line[:-1])
    assert (reply.jsonrpc, reply.id, reply.error, reply.method) == ("2.0", 9, None, None)
    assert decode_as(kind, reply.result) == result
    assert not differences(data, json.loads(line)["result"]), "among others, times keep their form"


@pytest.mark.parametrize("name", RESULTS)
def test_fields_of_a_newer_daemon_are_passed_over(name: str) -> None:
    info = introspect.type_info(RESULTS[name])
    newer = decode_as(RESULTS[name], raw(sample(info, full=True, extra=True)))
    assert newer == decode_as(RESULTS[name], raw(sample(info, full=True)))


@pytest.mark.parametrize("name", METHODS)
def test_unknown_parameters_are_refused(name: str) -> None:
    kind = METHODS[name].params
    data = sample(introspect.type_info(kind), full=False)
    with pytest.raises(ProtocolError, match=r"^unknown field `of_a_newer_version`$") as caught:
        decode_as(kind, raw(data | NEWER))
    assert caught.value.kind == "invalid_params"


@pytest.mark.parametrize("name", METHODS)
def test_each_required_parameter_is_missed(name: str) -> None:
    kind = METHODS[name].params
    data = sample(introspect.type_info(kind), full=False)
    for field in msgspec.structs.fields(kind):
        if field.required:
            less = {key: value for key, value in data.items() if key != field.name}
            with pytest.raises(ProtocolError, match=f"^missing field `{field.name}`$"):
                decode_as(kind, raw(less))


@pytest.mark.parametrize("name", METHODS)
def test_a_parameter_of_another_type_is_named(name: str) -> None:
    kind = METHODS[name].params
    data = sample(introspect.type_info(kind), full=True)
    for key in data:
        with pytest.raises(ProtocolError, match=rf"^`{key}`: expected "):
            decode_as(kind, raw(data | {key: {"a": 1} if key not in {"ended", "running"} else 5}))


@pytest.mark.parametrize("full", [False, True], ids=["least", "full"])
@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_notifications_come_back_as_they_were_sent(name: str, *, full: bool) -> None:
    kind = NOTIFICATIONS[name]
    params = decode_as(kind, raw(sample(introspect.type_info(kind), full=full)))
    line = encode_request(name, params)
    assert "id" not in json.loads(line)
    message = decode_reply(line[:-1])
    assert (message.method, message.id) == (name, None)
    assert decode_as(kind, message.params) == params


def test_the_methods_are_the_contracts() -> None:
    public = {name for name, method in METHODS.items() if not method.workers_only}
    assert public == {
        "server.info", "server.backup",
        "job.enqueue", "job.get", "job.list", "job.cancel", "job.retry", "job.wait", "job.logs",
        "dlq.list", "dlq.retry", "dlq.purge", "config.list", "config.get", "config.set", "config.unset",
        "worker.list", "worker.start", "worker.stop", "status.get",
    }  # fmt: skip


def test_a_summary_is_a_sentence() -> None:
    for method in METHODS.values():
        assert method.summary.endswith(".")


def test_no_struct_of_the_wire_can_be_changed() -> None:
    """A message is handed from thread to thread."""
    kinds = [*NOTIFICATIONS.values(), *(method.params for method in METHODS.values()), *RESULTS.values()]
    for kind in kinds:
        assert kind.__struct_config__.frozen, kind


def test_every_pattern_has_words() -> None:
    """Those in the schema of any method; without words, a person would be shown a regular expression."""
    kinds = [method.params for method in METHODS.values()]
    _, definitions = msgspec.json.schema_components(kinds)
    schema = json.dumps(definitions)
    found = {json.loads(part) for part in _patterns(json.loads(schema))}
    assert found == set(PATTERNS)


def _patterns(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [json.dumps(schema["pattern"])] if isinstance(schema.get("pattern"), str) else []
        return own + [found for value in schema.values() for found in _patterns(value)]
    if isinstance(schema, list):
        return [found for value in schema for found in _patterns(value)]
    return []


# --- errors ---------------------------------------------------------------------------------------------------------


def test_codes_and_words_are_unique() -> None:
    assert len({kind.code for kind in KINDS.values()}) == len(KINDS)
    assert all(word == kind.word for word, kind in KINDS.items())


def test_the_words_are_the_contracts() -> None:
    application = {word for word, kind in KINDS.items() if kind.code > -32100}
    assert application == {
        "not_found", "conflict", "invalid_state", "too_large", "busy", "forbidden", "shutting_down", "storage_full",
        "storage_failed", "unavailable",
    }  # fmt: skip
    standard = {word: kind.code for word, kind in KINDS.items() if word not in application}
    assert standard == {
        "parse_error": -32700,
        "invalid_request": -32600,
        "method_not_found": -32601,
        "invalid_params": -32602,
        "internal_error": -32603,
    }


@pytest.mark.parametrize("word", KINDS)
def test_an_error_has_the_code_of_its_kind(word: str) -> None:
    error = ProtocolError(word, "no", "why")
    assert (error.code, str(error), error.hint) == (KINDS[word].code, "no", "why")


def test_a_kind_of_a_newer_daemon_is_kept() -> None:
    error = ProtocolError("of_a_newer_version", "no")
    assert (error.kind, error.code) == ("of_a_newer_version", KINDS["internal_error"].code)


def test_counts_are_keyed_by_the_words_of_the_states() -> None:
    result = RESULTS["status.get"]
    data = sample(introspect.type_info(result), full=True)
    data["counts"] = {state.value: 1 for state in JobState}
    line = encode_result(1, decode_as(result, raw(data)))
    assert set(json.loads(line)["result"]["counts"]) == {
        "pending",
        "processing",
        "completed",
        "failed",
        "dead",
        "cancelled",
    }
