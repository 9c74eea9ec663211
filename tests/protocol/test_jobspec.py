"""A job as it is asked for: what is refused, with the field named, and what is not."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.framing import decode_as, explain
from queuectl_protocol.jobs import MAX_ARGUMENT_BYTES, MAX_SECONDS, JobSpec, content, spec_decoder
from queuectl_protocol.messages import EnqueueParams

ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


def refusal(text: str) -> str:
    """How `job.enqueue` refuses one job, as JSON text."""
    with pytest.raises(ProtocolError) as caught:
        decode_as(EnqueueParams, msgspec.Raw(f'{{"jobs":[{text}]}}'.encode()))
    assert caught.value.kind == "invalid_params"
    return caught.value.message


def spec(**fields: object) -> str:
    return json.dumps({"command": "true", **fields})


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        # which kind of job
        ("{}", None, "`jobs[0]`: give exactly one of `command` and `argv`"),
        (spec(argv=["true"]), None, "`jobs[0]`: give exactly one of `command` and `argv`"),
        (spec(command=None), None, "`jobs[0]`: give exactly one of `command` and `argv`"),
        ('"echo"', None, "`jobs[0]`: expected an object, got a string"),
        ("null", None, "`jobs[0]`: expected an object, got null"),
        # command
        (spec(command=""), "command", "`jobs[0]`: `command` is empty"),
        (spec(command=" \n\t"), "command", "`jobs[0]`: `command` is empty"),
        (spec(command="echo a\0b"), "command", "`jobs[0]`: `command` has a NUL byte in it"),
        (spec(command=5), "command", "`jobs[0].command`: expected a string or null, got a whole number"),
        (spec(command=["true"]), "command", "`jobs[0].command`: expected a string or null, got an array"),
        (spec(command="x" * (MAX_ARGUMENT_BYTES + 1)), "command", None),
        (spec(command="ä" * (MAX_ARGUMENT_BYTES // 2 + 1)), "command", None),
        # argv
        ('{"argv":[]}', "argv", "`jobs[0]`: `argv` is empty"),
        ('{"argv":[""]}', "argv", "`jobs[0]`: `argv` is empty"),
        ('{"argv":["a","\\u0000"]}', "argv", "`jobs[0]`: `argv` has a NUL byte in it"),
        ('{"argv":["a",1]}', "argv", "`jobs[0].argv[1]`: expected a string, got a whole number"),
        ('{"argv":"true"}', "argv", "`jobs[0].argv`: expected an array or null, got a string"),
        (json.dumps({"argv": ["echo", "x" * (MAX_ARGUMENT_BYTES + 1)]}), "argv", None),
        # unknown fields
        (spec(comand="x"), "comand", "`jobs[0]`: unknown field `comand`"),
        (spec(state="pending"), "state", "`jobs[0]`: unknown field `state`"),
        (spec(run_at="2030-01-01T00:00:00Z"), "run_at", "`jobs[0]`: unknown field `run_at`"),
        # id and queue
        (spec(id=""), "id", "`jobs[0].id`: must not be empty"),
        (spec(id="x" * 129), "id", "`jobs[0].id`: expected at most 128 characters"),
        (spec(id="a/b"), "id", "`jobs[0].id`: may hold only letters, digits, `.`, `_` and `-`"),
        (spec(id="a b"), "id", None),
        (spec(id="a\n"), "id", None),
        (spec(id="\na"), "id", None),
        (spec(id="ä"), "id", None),
        (spec(id="٣"), "id", None),
        (spec(id="\x1b[31m"), "id", None),
        (spec(id=5), "id", "`jobs[0].id`: expected a string or null, got a whole number"),
        (spec(queue=""), "queue", "`jobs[0].queue`: must not be empty"),
        (spec(queue="a b"), "queue", "`jobs[0].queue`: may hold only letters, digits, `.`, `_` and `-`"),
        (spec(queue=None), "queue", "`jobs[0].queue`: expected a string, got null"),
        # numbers
        (spec(priority="high"), "priority", "`jobs[0].priority`: expected a whole number, got a string"),
        (spec(priority=1.5), "priority", None),
        (spec(priority=1_000_001), "priority", "`jobs[0].priority`: expected a whole number, at most 1000000"),
        (spec(priority=-1_000_001), "priority", "`jobs[0].priority`: expected a whole number, at least -1000000"),
        (spec(priority=10**400), "priority", "`jobs[0].priority`: expected a whole number, at most 1000000"),
        (spec(priority=True), "priority", "`jobs[0].priority`: expected a whole number, got true or false"),
        (spec(max_retries=-1), "max_retries", "`jobs[0].max_retries`: expected a whole number, at least 0"),
        (spec(max_retries=10_001), "max_retries", "`jobs[0].max_retries`: expected a whole number, at most 10000"),
        (spec(max_retries="3"), "max_retries", None),
        (spec(timeout=-1), "timeout", "`jobs[0].timeout`: expected a number, at least 0"),
        (spec(timeout=0.0001), "timeout", "`jobs[0]`: `timeout` is 0 (none) or at least 0.01 seconds"),
        (spec(timeout=5e-324), "timeout", "`jobs[0]`: `timeout` is 0 (none) or at least 0.01 seconds"),
        (spec(timeout=1e300), "timeout", "`jobs[0].timeout`: expected a number, at most 315360000"),
        ('{"command":"true","timeout":1e999}', "timeout", "`jobs[0].timeout`: the number is out of range"),
        (f'{{"command":"true","timeout":{"9" * 5000}}}', "timeout", "`jobs[0].timeout`: the number is out of range"),
        (spec(timeout="5s"), "timeout", "`jobs[0].timeout`: expected a number or null, got a string"),
        (spec(delay=-0.5), "delay", "`jobs[0].delay`: expected a number, at least 0"),
        (spec(delay=MAX_SECONDS + 1), "delay", None),
        (spec(delay=None), "delay", "`jobs[0].delay`: expected a number, got null"),
        # the rest
        (spec(label="x" * 201), "label", "`jobs[0].label`: expected at most 200 characters"),
        (spec(label=1), "label", None),
        (spec(cwd="here"), "cwd", "`jobs[0]`: `cwd` is not an absolute path"),
        (spec(cwd=""), "cwd", "`jobs[0]`: `cwd` is not an absolute path"),
        (spec(cwd="/a\0"), "cwd", "`jobs[0]`: `cwd` has a NUL byte in it"),
        (spec(env=["A=1"]), "env", "`jobs[0].env`: expected an object or null, got an array"),
        (spec(env={"A": 1}), "env", "`jobs[0].env[...]`: expected a string, got a whole number"),
        (spec(env={"": "x"}), "env", None),
        (spec(env={"A=B": "x"}), "env", None),
        (spec(env={"A\0": "x"}), "env", None),
        (spec(env={"A": "x\0"}), "env", "`jobs[0]`: `env` has a NUL byte in it"),
        (spec(env={"A": "x" * MAX_ARGUMENT_BYTES}), "env", None),
        (spec(exact_env="yes"), "exact_env", "`jobs[0].exact_env`: expected true or false, got a string"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_job_is_refused_with_the_field_named(text: str, field: str | None, message: str | None) -> None:
    found = refusal(text)
    if field is not None:
        assert f"`{field}`" in found or f".{field}`" in found or f".{field}[" in found
    if message is not None:
        assert found == message
    assert len(found) < 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "-", "0x10", "1_000", "01", "+1"])
def test_what_json_does_not_call_a_number(number: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_as(EnqueueParams, msgspec.Raw(f'{{"jobs":[{{"command":"true","timeout":{number}}}]}}'.encode()))
    assert caught.value.kind == "parse_error"


def test_the_message_names_the_job_of_several() -> None:
    jobs = [{"command": "true"}, {"command": "true"}, {"command": ""}]
    with pytest.raises(ProtocolError, match=r"^`jobs\[2\]`: `command` is empty$"):
        decode_as(EnqueueParams, msgspec.Raw(json.dumps({"jobs": jobs}).encode()))


@pytest.mark.parametrize(
    ("count", "message"), [(0, "`jobs`: must not be empty"), (10_001, "`jobs`: expected at most 10000 items")]
)
def test_how_many_jobs(count: int, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_as(EnqueueParams, msgspec.Raw(json.dumps({"jobs": [{"command": "true"}] * count}).encode()))
    assert caught.value.message == message


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "x" * 128},
        {"id": "."},
        {"id": "A.b_c-9"},
        {"queue": "Q.1"},
        {"priority": 1_000_000},
        {"priority": -1_000_000},
        {"max_retries": 0},
        {"max_retries": 10_000},
        {"timeout": 0},
        {"timeout": 0.01},
        {"timeout": MAX_SECONDS},
        {"delay": 0.5},
        {"delay": MAX_SECONDS},
        {"label": "x" * 200},
        {"label": "\x1b[31mred\n"},
        {"cwd": "/"},
        {"env": {}},
        {"env": {"A": "", "a b": "=", "é": "é"}},
        {"env": {"A": "x" * (MAX_ARGUMENT_BYTES - 2)}},
        {"exact_env": True},
        {"command": "x" * MAX_ARGUMENT_BYTES},
        {"command": "\x1b]0;title\x07"},
        {"command": None, "argv": ["prog", "", "-x"]},
        {"command": None, "argv": ["prog", "x" * MAX_ARGUMENT_BYTES]},
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_the_edges_are_allowed(fields: dict[str, object]) -> None:
    (found,) = decode_as(EnqueueParams, msgspec.Raw(f'{{"jobs":[{spec(**fields)}]}}'.encode())).jobs
    for name, value in fields.items():
        assert getattr(found, name) == value


def test_defaults() -> None:
    assert spec_decoder().decode(b'{"command":"true"}') == JobSpec(
        id=None, command="true", argv=None, queue="default", priority=0, max_retries=None, timeout=None, delay=0,
        label="", cwd=None, env=None, exact_env=False, env_given=None,
    )  # fmt: skip


def test_a_lone_job_is_explained_without_a_place() -> None:
    """As `queuectl enqueue '{...}'` and `--file` read it."""
    for text, message in (
        (b'{"command":""}', "`command` is empty"),
        (b'{"command":"a","id":"a b"}', "`id`: may hold only letters, digits, `.`, `_` and `-`"),
        (b'{"command":"a","x":1}', "unknown field `x`"),
        (b"[]", "expected an object, got an array"),
    ):
        with pytest.raises(msgspec.ValidationError) as caught:
            spec_decoder().decode(text)
        assert explain(caught.value) == message


@pytest.mark.parametrize(
    "fields", [{"command": "\udcff"}, {"argv": ["a", "\udcff"]}, {"command": "a", "env": {"A": "\udcff"}}]
)
def test_bytes_that_are_no_text_are_refused_where_the_spec_is_made(fields: dict[str, object]) -> None:
    """Python gives such arguments to the client (surrogateescape); JSON can't carry them."""
    with pytest.raises(ValueError, match="is not valid Unicode"):
        JobSpec(**fields)  # type: ignore[arg-type]


@settings(deadline=None)
@given(name=st.text(max_size=140))
def test_ids_are_exactly_the_contracts(name: str) -> None:
    valid = 1 <= len(name) <= 128 and all(character in ID_CHARACTERS for character in name)
    try:
        spec_decoder().decode(spec(id=name).encode())
    except msgspec.ValidationError:
        assert not valid
    except msgspec.DecodeError:  # half of a surrogate pair
        assert not valid
    else:
        assert valid


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
name = st.text(ID_CHARACTERS, min_size=1, max_size=12)
program = st.one_of(
    st.fixed_dictionaries({"command": text.filter(str.strip)}),
    st.fixed_dictionaries(
        {"argv": st.builds(lambda first, rest: [first, *rest], text.filter(bool), st.lists(text, max_size=3))}
    ),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "id": name,
        "queue": name,
        "priority": st.integers(-1_000_000, 1_000_000),
        "max_retries": st.integers(0, 10_000),
        "timeout": st.just(0.0) | st.floats(0.01, MAX_SECONDS),
        "delay": st.floats(0, MAX_SECONDS),
        "label": text,
        "cwd": text.map(lambda path: f"/{path}"),
        "env": st.dictionaries(text.filter(lambda key: key and "=" not in key), text, max_size=3),
        "exact_env": st.booleans(),
    },
)


@settings(deadline=None)
@given(fields=st.builds(lambda first, second: first | second, program, options))
def test_a_spec_comes_back_as_it_was_sent(fields: dict[str, object]) -> None:
    found = spec_decoder().decode(json.dumps(fields).encode())
    assert {key: getattr(found, key) for key in fields} == fields
    assert spec_decoder().decode(msgspec.json.encode(found)) == found


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"queue": "default"},
        {"priority": 0},
        {"delay": 0},
        {"delay": -0.0},
        {"label": ""},
        {"argv": None, "cwd": None, "timeout": None, "max_retries": None},
        {"exact_env": False},
    ],
    ids=str,
)
def test_a_default_that_is_given_is_the_same_content(fields: dict[str, object]) -> None:
    assert content(spec_decoder().decode(spec(**fields).encode())) == content(JobSpec(command="true"))


def test_the_order_of_variables_is_no_content() -> None:
    ways = [b'{"command":"a","env":{"A":"1","B":"2"}}', b'{"env":{"B":"2","A":"1"},"command":"a"}']
    assert len({content(spec_decoder().decode(way)) for way in ways}) == 1


def test_zero_is_zero() -> None:
    ways = [b'{"command":"a","timeout":0}', b'{"command":"a","timeout":-0.0}', b'{"command":"a","timeout":0e5}']
    assert len({content(spec_decoder().decode(way)) for way in ways}) == 1


def counted(spec: JobSpec) -> JobSpec:
    """Without what does not count: the id, and of the whole environment all that was not given."""
    env = spec.env
    if spec.exact_env:
        env = {name: (spec.env or {})[name] for name in spec.env_given or ()} or None
    return msgspec.structs.replace(spec, id=None, env=env, env_given=None)


@settings(deadline=None)
@given(first=st.builds(lambda a, b: a | b, program, options), second=st.builds(lambda a, b: a | b, program, options))
def test_the_same_content_is_equal_fields(first: dict[str, object], second: dict[str, object]) -> None:
    one, other = (spec_decoder().decode(json.dumps(fields).encode()) for fields in (first, second))
    assert (content(one) == content(other)) is (counted(one) == counted(other))
    assert content(one) == content(spec_decoder().decode(msgspec.json.encode(one)))


def test_of_the_callers_environment_only_what_was_given_is_content() -> None:
    def job(env: dict[str, str], *given: str) -> bytes:
        return content(JobSpec(command="a", env=env, exact_env=True, env_given=[*given] or None))

    assert job({"A": "1", "TTY": "1"}, "A") == job({"A": "1", "TTY": "2"}, "A")
    assert job({"A": "1"}, "A") != job({"A": "2"}, "A")
    assert job({"A": "1"}) == job({"A": "2"}) != job({"A": "2"}, "A")
    with pytest.raises(ValueError, match="`env_given` names a variable that `env` does not have"):
        job({"A": "1"}, "B")
