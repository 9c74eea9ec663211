"""The log's limit: what is kept, how much more than that the disk may hold, and when to look again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from queuectld.worker.limited_log import FASTEST, SLOWEST, LimitedLog

BLOCK = 4096
LIMIT = 16 * BLOCK


@contextmanager
def limited(path: Path, limit: int = LIMIT, kind: type[LimitedLog] = LimitedLog) -> Iterator[LimitedLog]:
    path.touch()
    log = kind(os.open(path, os.O_WRONLY | os.O_APPEND), limit, now=-1.0)
    yield log
    log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.1.log"


@pytest.fixture
def say(path: Path) -> Callable[[int], bytes]:
    """Writes as a job does; all that was written so far."""
    written = bytearray()

    def say(size: int) -> bytes:
        data = os.urandom(size)
        written.extend(data)
        with path.open("ab") as file:
            file.write(data)
        return bytes(written)

    return say


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def holes_then_data(path: Path, content: bytes, kept: int) -> None:
    """The newest `kept` bytes are as they were written, and what was given back is zeros of the same length."""
    found = path.read_bytes()
    assert len(found) == len(content), "offsets stay what they were"
    assert found[-kept:] == content[-kept:]
    assert not found[: len(content) - kept - BLOCK].strip(b"\0")


def test_below_the_limit_nothing_is_touched(path: Path, say: Callable[[int], bytes]) -> None:
    with limited(path) as log:
        content = say(LIMIT)
        log.look(0.0)
    assert path.read_bytes() == content


def test_what_is_over_the_limit_is_given_back_and_the_newest_stays_whole(
    path: Path, say: Callable[[int], bytes]
) -> None:
    with limited(path) as log:
        for now in range(20):
            content = say(5 * BLOCK + 100)
            log.look(float(now))
            assert on_disk(path) <= LIMIT + 2 * BLOCK
            if len(content) > LIMIT:
                holes_then_data(path, content, LIMIT)


def test_the_last_look_is_taken_at_the_end(path: Path, say: Callable[[int], bytes]) -> None:
    with limited(path):
        content = say(40 * BLOCK + 1)
    assert on_disk(path) <= LIMIT + 2 * BLOCK
    holes_then_data(path, content, LIMIT)


def test_nothing_is_done_before_it_is_time(path: Path, say: Callable[[int], bytes]) -> None:
    with limited(path) as log:
        log.look(10.0)
        due = log.next_look
        assert due is not None
        content = say(40 * BLOCK)
        log.look(due - 0.001)
        assert path.read_bytes() == content
        log.look(due)
        holes_then_data(path, content, LIMIT)


def test_a_quiet_log_is_looked_at_seldom_and_a_fast_one_often(path: Path, say: Callable[[int], bytes]) -> None:
    with limited(path) as log:
        log.look(10.0)
        assert log.next_look == 10.0 + SLOWEST
        say(LIMIT // 4)
        log.look(11.0)
        assert log.next_look == 11.0 + SLOWEST
        say(LIMIT)
        log.look(12.0)
        assert log.next_look == pytest.approx(12.25), "a quarter of the limit may come until then"
        say(100 * LIMIT)
        log.look(12.25)
        assert log.next_look == pytest.approx(12.25 + FASTEST)


def test_a_log_that_its_job_has_emptied_begins_anew(path: Path, say: Callable[[int], bytes]) -> None:
    """As `: > /dev/stdout` does; what was cut before must not count for what comes now."""
    with limited(path) as log:
        say(100 * BLOCK)
        log.look(0.0)
        os.truncate(path, 0)
        log.look(1.0)
        content = os.urandom(60 * BLOCK)
        path.write_bytes(content)
        log.look(2.0)
        assert on_disk(path) <= LIMIT + 2 * BLOCK
        holes_then_data(path, content, LIMIT)


class WholeLog(LimitedLog):
    """On a file system that can't give back the middle of a file."""

    tried = 0

    def _give_back(self, end: int) -> bool:
        WholeLog.tried += 1
        return False


def test_where_no_hole_can_be_made_the_log_stays_whole_and_is_left_alone(
    path: Path, say: Callable[[int], bytes]
) -> None:
    WholeLog.tried = 0
    with limited(path, kind=WholeLog) as log:
        say(40 * BLOCK)
        log.look(0.0)
        assert log.next_look is None
        content = say(40 * BLOCK)
        log.look(100.0)
    assert path.read_bytes() == content
    assert WholeLog.tried == 1


def test_the_descriptor_is_closed_with_it(path: Path) -> None:
    before = descriptors()
    with limited(path):
        pass
    assert descriptors() == before
