"""Jobs as asked for, from JSON and from files of it: errors name the field and the line."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from queuectl_client.errors import BadRequest
from queuectl_client.jobs import specs
from queuectl_client.jobs.batches import BATCH_BYTES, BATCH_JOBS, batches
from queuectl_client.jobs.file import JobFile
from queuectl_protocol.framing import encode_request
from queuectl_protocol.jobs import JobSpec
from queuectl_protocol.lines import MAX_LINE
from queuectl_protocol.messages import EnqueueParams


def test_a_job_gets_an_id_where_it_has_none() -> None:
    [one] = specs.from_json(b'{"command": "true"}', {})
    [two] = specs.from_json(b'{"command": "true", "id": "mine"}', {})
    assert one.id is not None
    assert len(one.id) == 12
    assert two.id == "mine"


def test_an_array_is_several_jobs() -> None:
    found = specs.from_json(b' [{"command": "a"}, {"argv": ["b"]}]', {})
    assert [(job.command, job.argv) for job in found] == [("a", None), (None, ["b"])]


def test_options_stand_in_for_fields_that_are_not_given() -> None:
    defaults = {"queue": "night", "priority": 3, "timeout": None}
    one, two = specs.from_json(b'[{"command": "a"}, {"command": "b", "queue": "day"}]', defaults)
    assert (one.queue, one.priority, one.timeout) == ("night", 3, None)
    assert (two.queue, two.priority) == ("day", 3)


BAD: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"nope", "not JSON"),
    (b'{"command": "\xff"}', "not JSON"),
    (b'"x"', "expected an object"),
    (b"5", "expected an object"),
    (b"null", "expected an object"),
    (b"{}", "exactly one of `command` and `argv`"),
    (b'{"command": "a", "argv": ["b"]}', "exactly one of `command` and `argv`"),
    (b'{"command": ""}', "`command` is empty"),
    (b'{"command": "  "}', "`command` is empty"),
    (b'{"command": "a\\u0000b"}', "`command` has a NUL byte"),
    (b'{"argv": []}', "`argv` is empty"),
    (b'{"argv": ["a", 5]}', "`argv[1]`"),
    (b'{"command": "a", "prio": 1}', "unknown field `prio`"),
    (b'{"command": "a", "priority": "high"}', "`priority`"),
    (b'{"command": "a", "priority": 1.5}', "`priority`"),
    (b'{"command": "a", "max_retries": -1}', "`max_retries`"),
    (b'{"command": "a", "timeout": -1}', "`timeout`"),
    (b'{"command": "a", "timeout": 0.0001}', "`timeout`"),
    (b'{"command": "a", "timeout": 1e30}', "`timeout`"),
    (b'{"command": "a", "timeout": NaN}', "not JSON"),
    (b'{"command": "a", "delay": -0.5}', "`delay`"),
    (b'{"command": "a", "id": "a b"}', "`id`"),
    (b'{"command": "a", "id": ""}', "`id`"),
    (b'{"command": "a", "cwd": "relative"}', "`cwd`"),
    (b'{"command": "a", "env": {"A": 1}}', "`env"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
@pytest.mark.parametrize("defaults", [{}, {"label": "x"}])
def test_bad_input_names_the_field(text: bytes, message: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        specs.from_json(text, defaults)
    assert message in caught.value.message
    assert "$" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_in_an_array_the_place_is_named_and_nothing_is_returned() -> None:
    with pytest.raises(BadRequest, match=r"job 1 of the array.*unknown field `x`"):
        specs.from_json(b'[{"command": "a"}, {"command": "b", "x": 1}]', {})
    with pytest.raises(BadRequest, match="holds no job"):
        specs.from_json(b"[]", {})


def test_fields_are_checked_like_json() -> None:
    with pytest.raises(BadRequest, match="`timeout`"):
        specs.from_fields({"command": "a", "timeout": float("nan")})
    with pytest.raises(BadRequest, match="`env` has a variable whose name"):
        specs.from_fields({"command": "a", "env": {"A=B": "1"}})


# --- batches --------------------------------------------------------------------------------------------------------


def test_batches_are_neither_too_many_nor_too_long() -> None:
    small = [specs.from_fields({"command": "true"}) for _ in range(BATCH_JOBS * 2 + 1)]
    assert [len(batch) for batch in batches(small)] == [BATCH_JOBS, BATCH_JOBS, 1]
    large = [specs.from_fields({"command": "x" * 100_000}) for _ in range(12)]
    found = list(batches(large))
    assert [job for batch in found for job in batch] == large
    for batch in found:
        assert len(msgspec.json.encode(batch)) <= BATCH_BYTES + 1000


def read(path: Path, defaults: dict[str, Any] | None = None) -> tuple[JobFile, list[list[JobSpec]], BadRequest | None]:
    """The batches of a file, without the empty ones, and the error that ended them."""
    descriptor = os.open(path, os.O_RDONLY)
    found: list[list[JobSpec]] = []
    try:
        jobs = JobFile(descriptor, defaults or {})
        try:
            found.extend(batch for batch in jobs.batches() if batch)
        except BadRequest as error:
            return jobs, found, error
        return jobs, found, None
    finally:
        os.close(descriptor)


def test_a_file_is_read_in_batches_blank_lines_skipped(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(b"\n".join(b'{"command": "echo %d"}\n' % n for n in range(1200)))
    jobs, found, error = read(path)
    assert error is None
    assert [job.command for batch in found for job in batch] == [f"echo {n}" for n in range(1200)]
    assert [len(batch) for batch in found] == [500, 500, 200]
    # Two lines a job, the second of them blank: a batch ends before the line that begins the next one.
    assert [last for last, _ in jobs.ends] == [1000, 2000, 2400]
    assert jobs.ends[-1][1] >= path.stat().st_size


def test_the_last_line_may_lack_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(b'{"command": "a"}\r\n{"command": "b"}')
    _, found, error = read(path)
    assert error is None
    assert [job.command for job in found[0]] == ["a", "b"]


@pytest.mark.parametrize("good", [0, 1, 499, 500, 501, 1203])
def test_all_lines_before_a_bad_one_are_handed_on(tmp_path: Path, good: int) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(b'{"command": "a"}\n' * good + b'{"command": "a", "bad": 1}\n' + b'{"command": "a"}\n' * 9)
    jobs, found, error = read(path)
    assert sum(map(len, found)) == good
    assert error is not None
    assert error.message == f"line {good + 1}: unknown field `bad`"
    assert jobs.line == good + 1
    assert [last for last, _ in jobs.ends][-1:] == ([good] if good else [])


def test_a_line_that_is_too_long_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(b'{"command": "a"}\n' + b"x" * (MAX_LINE + 1) + b"\n")
    _, found, error = read(path)
    assert len(found[0]) == 1
    assert error is not None
    assert error.message == "line 2: longer than 1 MiB"


def test_no_batch_of_a_file_is_longer_than_a_line_may_be(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    line = msgspec.json.encode({"command": "y" * 5000})
    path.write_bytes(b"\n".join([line] * 700))
    _, found, error = read(path, {"label": "l" * 200, "queue": "q" * 128, "max_retries": 5})
    assert error is None
    assert sum(map(len, found)) == 700
    for batch in found:
        assert len(encode_request("job.enqueue", EnqueueParams(jobs=batch), 1)) < MAX_LINE


def test_what_a_slow_pipe_holds_does_not_wait_for_more() -> None:
    reading, writing = os.pipe()
    written = threading.Event()
    try:
        batches = JobFile(reading, {}).batches()
        os.write(writing, b'{"command": "a"}\n{"command": "b"}\n{"comm')
        first = next(batch for batch in batches if batch)
        assert [job.command for job in first] == ["a", "b"]
        assert next(batches) == []  # nothing is there: settle what was sent
        os.write(writing, b'and": "c"}\n')
        written.set()
        os.close(writing)
        assert [job.command for batch in batches for job in batch] == ["c"]
    finally:
        if not written.is_set():
            os.close(writing)
        os.close(reading)
