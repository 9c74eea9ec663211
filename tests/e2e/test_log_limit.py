"""The limit of a log: what stays on disk, what is told of what went, and that all else is as without a limit."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path

import pytest

from tests.harness import Daemon, wait_for

LIMIT = 1 << 20
BLOCK = 4096
SLACK = 2 * BLOCK
"""Of a log whose job has ended: the cut is at the end of a block, and the file system keeps blocks of its own."""
LINE = 64
REMARK = "the log reached its limit: output before this was dropped"


def line(number: int) -> str:
    return f"{number:0{LINE - 1}}\n"


def lines(first: int, count: int) -> str:
    """A command that says so many lines, each `LINE` bytes long and telling its number."""
    return f"seq -f %0{LINE - 1}.0f {first} {first + count - 1}"


@pytest.fixture
def limited(single: Daemon) -> Daemon:
    single.call("config.set", key="log_max_bytes", value=LIMIT)
    return single


def log_of(daemon: Daemon, job: int = 1, attempt: int = 1) -> Path:
    return daemon.state_dir / "logs" / "0" / f"{job}.{attempt}.log"


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def read_all(daemon: Daemon, job_id: str, offset: int = 0) -> tuple[int, bytes, list[bool]]:
    """Where the log begins, all that is there of it, and of which pieces it was said that output before was dropped."""
    piece = daemon.call("job.logs", id=job_id, offset=offset, base64=True)
    begin, data, dropped = piece["offset"], base64.b64decode(piece["base64"]), [piece["dropped"]]
    while not piece["end"]:
        piece = daemon.call("job.logs", id=job_id, offset=piece["next"], base64=True)
        assert piece["offset"] == begin + len(data)
        data += base64.b64decode(piece["base64"])
        dropped.append(piece["dropped"])
    return begin, data, dropped


# --- what stays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LIMIT // 2, LIMIT, LIMIT + LINE, 20 * LIMIT], ids=["half", "all", "more", "twenty"])
def test_the_newest_output_is_whole_and_exact(limited: Daemon, size: int) -> None:
    count = size // LINE
    job_id = limited.enqueue(lines(0, count))
    limited.wait_state(job_id, "completed")
    begin, data, dropped = read_all(limited, job_id)
    expected = "".join(line(number) for number in range(count)).encode()
    assert begin == max(0, size - LIMIT) // BLOCK * BLOCK, "no more than needed is dropped, in whole blocks"
    assert data == expected[begin:]
    assert on_disk(log_of(limited)) <= min(size, LIMIT) + SLACK
    assert log_of(limited).stat().st_size == size, "offsets stay what they were"
    assert dropped == [begin > 0] + [False] * (len(dropped) - 1), "said once, where it is missed"


def test_binary_output_is_exact(limited: Daemon) -> None:
    job_id = limited.enqueue(
        "head -c 3000000 /dev/urandom | tee $QUEUECTL_COPY", env={"QUEUECTL_COPY": f"{limited.directory}/copy"}
    )
    limited.wait_state(job_id, "completed")
    begin, data, _ = read_all(limited, job_id)
    assert data == (limited.directory / "copy").read_bytes()[begin:]
    assert len(data) >= LIMIT


def test_no_limit_drops_nothing(single: Daemon) -> None:
    single.call("config.set", key="log_max_bytes", value=0)
    job_id = single.enqueue(lines(0, 4 * LIMIT // LINE))
    single.wait_state(job_id, "completed")
    begin, data, dropped = read_all(single, job_id)
    assert (begin, len(data), any(dropped)) == (0, 4 * LIMIT, False)


def test_each_attempt_has_the_limit_for_itself(limited: Daemon) -> None:
    job_id = limited.enqueue(f"{lines(0, 3 * LIMIT // LINE)}; exit 1", max_retries=2)
    limited.wait_state(job_id, "dead")
    for attempt in (1, 2):
        assert LIMIT <= on_disk(log_of(limited, attempt=attempt)) <= LIMIT + SLACK


def test_the_disk_is_not_filled_by_a_job_that_talks_for_ever(limited: Daemon) -> None:
    """While it talks as fast as it can, the log may be over its limit by what comes between two looks.

    They are a second apart until it is known how fast it talks, then a fiftieth of one. This allows for half of what it
    says in all, and so for a machine that does not let the worker look for two seconds.
    """
    limited.call("config.set", key="log_max_bytes", value=16 * LIMIT)
    job_id = limited.enqueue("yes 'all work and no play'")
    limited.wait_state(job_id, "processing")
    path = log_of(limited)
    wait_for(path.exists, "the log")
    began, most = time.monotonic(), 0
    while time.monotonic() - began < 4:
        most = max(most, on_disk(path))
        time.sleep(0.005)  # a look now and then, while it goes on
    said = path.stat().st_size
    limited.call("job.cancel", ids=[job_id])
    limited.wait_state(job_id, "cancelled")
    assert said > 100 * LIMIT, "it does talk"
    assert most <= 16 * LIMIT + said / 2
    assert on_disk(path) <= 16 * LIMIT + SLACK


# --- what is told ---------------------------------------------------------------------------------------------------


def test_the_client_says_once_that_older_output_was_dropped(limited: Daemon) -> None:
    job_id = limited.enqueue(lines(0, 3 * LIMIT // LINE))
    limited.wait_state(job_id, "completed")
    done = limited.queuectl("logs", job_id)
    assert done.stderr == f"queuectl: {REMARK}\n"
    assert done.stdout.endswith(line(3 * LIMIT // LINE - 1))
    assert len(done.stdout) == LIMIT, "more than one piece of the wire's"


def test_the_client_says_nothing_of_what_was_not_asked_for(limited: Daemon) -> None:
    count = 3 * LIMIT // LINE
    job_id = limited.enqueue(lines(0, count))
    limited.wait_state(job_id, "completed")
    done = limited.queuectl("logs", job_id, "--tail", "3")
    assert (done.stdout, done.stderr) == ("".join(line(number) for number in range(count - 3, count)), "")


def test_a_tail_of_more_than_is_there_begins_where_the_log_does(limited: Daemon) -> None:
    count = 3 * LIMIT // LINE
    job_id = limited.enqueue(lines(0, count))
    limited.wait_state(job_id, "completed")
    done = limited.queuectl("logs", job_id, "--tail", str(count))
    assert len(done.stdout) == LIMIT
    assert REMARK in done.stderr


def test_an_offset_that_was_dropped_leads_to_what_is_there(limited: Daemon) -> None:
    job_id = limited.enqueue(lines(0, 3 * LIMIT // LINE))
    limited.wait_state(job_id, "completed")
    begin, _, _ = read_all(limited, job_id)
    for offset, expected, dropped in ((0, begin, True), (begin - 1, begin, True), (begin + 1, begin + 1, False)):
        piece = limited.call("job.logs", id=job_id, offset=offset)
        assert (piece["offset"], piece["dropped"]) == (expected, dropped)


def test_who_follows_gets_all_that_is_said_before_it_is_cut(limited: Daemon) -> None:
    """A follower that keeps up misses nothing, though what it has read is dropped behind it, again and again."""
    rounds, count = 12, LIMIT // 4 // LINE
    gates = limited.directory / "gates"
    gates.mkdir()
    job_id = limited.enqueue(
        f"for n in $(seq 0 {rounds - 1}); do until test -e {gates}/$n; do sleep 0.01; done; "
        f"seq -f %0{LINE - 1}.0f $((n * {count})) $((n * {count} + {count} - 1)); done; "
        f"until test -e {gates}/end; do sleep 0.01; done"
    )
    data, offset = b"", 0
    with limited.wire() as wire:
        for turn in range(rounds):
            (gates / str(turn)).touch()
            while len(data) < (turn + 1) * count * LINE:
                piece = wire.call("job.logs", id=job_id, offset=offset, follow=True, base64=True)
                assert (piece["offset"], piece["dropped"]) == (offset, False)
                data += base64.b64decode(piece["base64"])
                offset = piece["next"]
        wait_for(lambda: on_disk(log_of(limited)) <= LIMIT + SLACK, "the log to be cut behind the reader")
        (gates / "end").touch()
        last = wire.call("job.logs", id=job_id, offset=offset, follow=True, base64=True)
        assert (last["end"], last["base64"]) == (True, "")
    assert data.decode() == "".join(line(number) for number in range(rounds * count))


def test_who_follows_too_slowly_is_told_of_the_gap(limited: Daemon) -> None:
    job_id = limited.enqueue(
        f"{lines(0, 10)}; until test -e {limited.directory}/gate; do sleep 0.01; done; {lines(10, 4 * LIMIT // LINE)}"
    )
    first = limited.call("job.logs", id=job_id, follow=True)
    (limited.directory / "gate").touch()
    limited.wait_state(job_id, "completed")
    piece = limited.call("job.logs", id=job_id, offset=first["next"], follow=True)
    assert piece["dropped"] is True
    assert piece["offset"] > first["next"]
    done = limited.queuectl("logs", "-f", job_id)
    assert re.findall(REMARK, done.stderr) == [REMARK]


def test_a_new_limit_counts_for_the_next_attempt(limited: Daemon) -> None:
    first = limited.enqueue(lines(0, 3 * LIMIT // LINE))
    limited.wait_state(first, "completed")
    limited.call("config.set", key="log_max_bytes", value=2 * LIMIT)
    second = limited.enqueue(lines(0, 3 * LIMIT // LINE))
    limited.wait_state(second, "completed")
    assert [len(read_all(limited, job_id)[1]) // LIMIT for job_id in (first, second)] == [1, 2]
