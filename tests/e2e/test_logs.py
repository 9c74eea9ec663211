"""Output of attempts, over the wire: pieces, tails, following, and output that is no text."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from queuectld.attempt_files.log_files import log_path
from tests.harness import Daemon, RefusedError, request_line, wait_for


def run(daemon: Daemon, command: str, **fields: Any) -> str:
    job_id = daemon.enqueue(command, **fields)
    daemon.call("job.wait", ids=[job_id])
    return job_id


def read_all(daemon: Daemon, job_id: str, **params: Any) -> tuple[bytes, int]:
    """The whole log piece by piece, and in how many pieces it came."""
    data, offset, pieces = b"", 0, 0
    while True:
        piece = daemon.call("job.logs", id=job_id, offset=offset, base64=True, **params)
        assert piece["offset"] == offset
        chunk = base64.b64decode(piece["base64"])
        data, pieces = data + chunk, pieces + 1
        assert piece["next"] == offset + len(chunk)
        offset = piece["next"]
        if piece["end"]:
            return data, pieces


def watches(daemon: Daemon) -> list[int]:
    """Inodes that the daemon watches for writes."""
    found = []
    for entry in Path(f"/proc/{daemon.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split() for line in entry.read_text().splitlines() if line.startswith("inotify ")]
            found += [int(word.removeprefix("ino:"), 16) for line in lines for word in line if word.startswith("ino:")]
    return found


def is_watched(daemon: Daemon, path: Path) -> bool:
    return path.stat().st_ino in watches(daemon)


def test_output_and_error_are_one_log_in_order(single: Daemon) -> None:
    job_id = run(single, "echo one; echo two >&2; printf three")
    assert single.call("job.logs", id=job_id) == {
        "attempt": 1, "offset": 0, "next": 13, "end": True, "text": "one\ntwo\nthree", "base64": None, "dropped": False,
    }  # fmt: skip


def test_each_attempt_has_a_log_and_the_newest_is_the_default(single: Daemon) -> None:
    job_id = run(single, "echo attempt $QUEUECTL_ATTEMPT; exit 1", max_retries=3)
    assert [single.output(job_id, number) for number in (1, 2, 3)] == [f"attempt {n}\n" for n in (1, 2, 3)]
    assert single.output(job_id) == "attempt 3\n"
    with pytest.raises(RefusedError) as caught:
        single.output(job_id, 4)
    assert caught.value.kind == "not_found"


def test_a_job_that_never_ran_has_no_log(daemon: Daemon) -> None:
    job_id = daemon.enqueue("true")
    answer = daemon.call("job.logs", id=job_id)
    assert (answer["attempt"], answer["text"], answer["end"]) == (None, "", True)


def test_a_job_without_output_has_an_empty_log(single: Daemon) -> None:
    answer = single.call("job.logs", id=run(single, "true"), tail=5)
    assert (answer["attempt"], answer["text"], answer["end"], answer["next"]) == (1, "", True, 0)


def test_a_long_log_comes_in_pieces(single: Daemon) -> None:
    job_id = run(single, "seq 1 200000")
    data, pieces = read_all(single, job_id)
    assert data == b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert pieces > 4


def test_binary_output_is_exact_in_base64_and_readable_as_text(single: Daemon) -> None:
    job_id = run(single, r"printf '\000\377\376a\200\n'")
    data, _ = read_all(single, job_id)
    assert data == b"\0\xff\xfea\x80\n"
    assert single.output(job_id) == "\0��a�\n"


def test_text_pieces_do_not_cut_characters(single: Daemon) -> None:
    job_id = run(single, "yes 'ä€𝄞' | head -c 700000 | iconv -c -f UTF-8 -t UTF-8")
    text, offset = "", 0
    while True:
        piece = single.call("job.logs", id=job_id, offset=offset)
        text, offset = text + piece["text"], piece["next"]
        if piece["end"]:
            break
    assert "�" not in text
    assert text.encode() == read_all(single, job_id)[0]


@pytest.mark.parametrize(
    ("tail", "expected"), [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (1_000_000, "a\nb\nc\n")]
)
def test_tail_counts_lines(single: Daemon, tail: int, expected: str) -> None:
    assert single.call("job.logs", id=run(single, "printf 'a\\nb\\nc\\n'"), tail=tail)["text"] == expected


def test_tail_of_a_last_line_without_newline_and_of_a_long_log(single: Daemon) -> None:
    assert single.call("job.logs", id=run(single, "printf 'a\\nb\\nc'"), tail=2)["text"] == "b\nc"
    answer = single.call("job.logs", id=run(single, "seq 1 100000"), tail=20_000)
    assert answer["text"].splitlines() == [str(number) for number in range(80_001, 100_001)]


def test_offsets_beyond_the_end(single: Daemon) -> None:
    job_id = run(single, "echo hello")
    answer = single.call("job.logs", id=job_id, offset=1000)
    assert (answer["text"], answer["end"]) == ("", True)
    assert single.call("job.logs", id=job_id, offset=2**63 - 1)["text"] == ""


def test_follow_streams_while_it_runs_and_ends_with_it(single: Daemon, directory: Path) -> None:
    job_id = single.enqueue(
        f"for n in 1 2 3; do echo line $n; until test -e {directory}/gate$n; do sleep 0.01; done; done", max_retries=1
    )
    text, offset = "", 0
    with single.wire() as wire:
        for number in (1, 2, 3):
            while f"line {number}\n" not in text:
                piece = wire.call("job.logs", id=job_id, offset=offset, follow=True)
                assert piece["text"]
                assert piece["end"] is False
                text, offset = text + piece["text"], piece["next"]
            assert single.job(job_id)["state"] == "processing"
            if number == 3:
                wire.send("job.logs", id=job_id, offset=offset, follow=True)
            (directory / f"gate{number}").touch()
        last = wire.receive()["result"]
    assert (last["text"], last["end"]) == ("", True)
    assert text == "line 1\nline 2\nline 3\n"


def test_follow_waits_for_an_attempt_that_has_not_begun(daemon: Daemon) -> None:
    job_id = daemon.enqueue("echo begun")
    with daemon.wire() as wire, daemon.wire() as second:
        wire.send("job.logs", id=job_id, follow=True)
        second.send("job.logs", id=job_id, attempt=1, follow=True)
        daemon.call("worker.start", count=1)
        for one in (wire, second):
            piece = one.receive()["result"]
            assert (piece["attempt"], piece["text"]) == (1, "begun\n")


def test_follow_of_a_later_attempt_waits_for_it_or_for_the_end(single: Daemon) -> None:
    job_id = single.enqueue("echo attempt $QUEUECTL_ATTEMPT; sleep 0.1; test $QUEUECTL_ATTEMPT = 2")
    assert single.call("job.logs", id=job_id, attempt=2, follow=True)["text"] == "attempt 2\n"
    answer = single.call("job.logs", id=job_id, attempt=3, follow=True)
    assert (answer["attempt"], answer["end"]) == (None, True)


def test_follow_of_the_newest_attempt_ends_with_it(single: Daemon, directory: Path) -> None:
    """However soon the next one begins."""
    command = (
        f"echo attempt $QUEUECTL_ATTEMPT; until test -e {directory}/gate$QUEUECTL_ATTEMPT; do sleep 0.01; done; exit 1"
    )
    single.enqueue(command, id="again", max_retries=2)
    wait_for(lambda: single.output("again"), "its first output")
    offset = len("attempt 1\n")
    with single.wire() as wire:
        wire.send("job.logs", id="again", offset=offset, follow=True)
        # Not before: which attempt is the newest is decided when the daemon looks.
        log = log_path(single.state_dir, 1, 1)
        wait_for(lambda: is_watched(single, log), "the first attempt to be followed")
        (directory / "gate1").touch()
        wait_for(lambda: single.job("again")["attempts"] == 2, "the second attempt")
        piece = wire.receive()["result"]
    assert (piece["attempt"], piece["text"], piece["end"]) == (1, "", True)
    (directory / "gate2").touch()


def test_follow_of_a_job_that_is_cancelled_before_it_began(daemon: Daemon) -> None:
    job_id = daemon.enqueue("true")
    with daemon.wire() as wire:
        wire.send("job.logs", id=job_id, follow=True)
        daemon.call("job.cancel", ids=[job_id])
        answer = wire.receive()["result"]
    assert (answer["attempt"], answer["end"]) == (None, True)


def test_many_follow_one_job(single: Daemon, directory: Path) -> None:
    job_id = single.enqueue(f"until test -e {directory}/gate; do sleep 0.01; done; echo said")
    wires = [single.wire() for _ in range(50)]
    for wire in wires:
        wire.send("job.logs", id=job_id, follow=True)
    single.wait_state(job_id, "processing")
    (directory / "gate").touch()
    for wire in wires:
        with wire:
            assert wire.receive()["result"]["text"] == "said\n"


def test_followers_who_leave_cost_nothing(single: Daemon) -> None:
    job_id = single.enqueue("while :; do sleep 0.05; done")
    single.wait_state(job_id, "processing")

    def descriptors() -> int:
        return len(list(Path(f"/proc/{single.pid}/fd").iterdir()))

    single.call("job.list")
    before = descriptors()
    wires = [single.wire() for _ in range(20)]
    for number, wire in enumerate(wires):
        wait = request_line("job.wait", 1, {"ids": [job_id]})
        follow = request_line("job.logs", 2, {"id": job_id, "follow": True})
        wire.send_raw((wait + follow) * (1 + number % 2 * 70))  # some ask for more than is worked on at once
        if number % 3 == 0:
            wire.connection.shutdown(socket.SHUT_WR)
    wait_for(lambda: descriptors() >= before + len(wires) and watches(single), "all to be waited for")
    for wire in wires:
        wire.connection.close()
        wire.__exit__()
    wait_for(lambda: descriptors() <= before + 1, "descriptors to be closed")
    wait_for(lambda: not watches(single), "nothing to be watched any more")


def test_following_a_silent_job_costs_nothing_however_many_do(single: Daemon) -> None:
    job_id = single.enqueue("echo said; sleep 1000")
    wait_for(lambda: single.output(job_id), "its output")

    def ticks() -> int:
        """Of processor time that the daemon has used, 100 a second."""
        return sum(map(int, Path(f"/proc/{single.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    with contextlib.ExitStack() as stack:
        for _ in range(8):
            wire = stack.enter_context(single.wire())
            for _ in range(64):
                wire.send("job.logs", id=job_id, offset=5, follow=True)
            wire.send("job.get", id=job_id)  # the 65th is begun when one of the others is answered
        wait_for(lambda: watches(single), "the log to be watched")
        quiet = 0
        while quiet < 3:  # all have looked when nothing is done any more
            before = ticks()
            time.sleep(0.5)
            quiet = quiet + 1 if ticks() - before <= 5 else 0
        single.call("job.cancel", ids=[job_id])


def test_log_files_are_the_users_own_and_named_by_numbers(single: Daemon) -> None:
    job_id = run(single, "echo x", id="..")
    files = [path for path in (single.state_dir / "logs").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["1.1.log"]
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert single.output(job_id) == "x\n"


def test_a_log_removed_by_hand_is_no_fault(single: Daemon) -> None:
    job_id = run(single, "echo x")
    next((single.state_dir / "logs").rglob("*.log")).unlink()
    answer = single.call("job.logs", id=job_id)
    assert (answer["text"], answer["end"]) == ("", True)
    running = single.enqueue("sleep 0.3; echo y")
    single.wait_state(running, "processing")
    began = time.monotonic()
    assert single.call("job.logs", id=running, follow=True)["text"] == "y\n"
    assert time.monotonic() - began < 30


def test_a_log_of_fifteen_terabytes_holds_nobody_up(single: Daemon, directory: Path) -> None:
    """Made in no time, of nothing: two lines, a hole, and two lines."""
    single.call("config.set", key="log_max_bytes", value=0)
    job_id = single.enqueue(
        f"seq 1 2; truncate -s 15T /proc/self/fd/1 && until test -e {directory}/gate; do sleep 0.01; done; seq 3 4",
        max_retries=1,
    )
    wait_for(lambda: "truncate" in str(single.job(job_id)) and single.output(job_id), "its output")
    wires = [single.wire() for _ in range(20)]
    for wire in wires:
        wire.send("job.logs", id=job_id, tail=3)
    for wire in wires:
        with wire:
            assert wire.receive()["result"]["text"].startswith("1\n2\n")
    (directory / "gate").touch()
    single.wait_state(job_id, "completed")
    for tail, expected in ((1, "4\n"), (3, "2\n3\n4\n"), (9, "1\n2\n3\n4\n")):
        assert single.queuectl("logs", "--tail", str(tail), job_id).stdout.replace("\0", "") == expected
    single.call("server.backup", path=str(directory / "copy.db"))
    assert single.stop() == 0


@pytest.mark.parametrize("kind", ["pipe", "link", "directory", "device", "socket"])
def test_what_a_job_puts_in_the_place_of_its_log_is_not_read(single: Daemon, directory: Path, kind: str) -> None:
    (directory / "secret").write_text("secret\n")
    job_id = single.enqueue(f"echo said; until test -e {directory}/gate; do sleep 0.01; done")
    wait_for(lambda: single.output(job_id), "its output")
    path = next((single.state_dir / "logs").rglob("*.log"))
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(directory / "secret")
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero") if os.geteuid() else os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
    with single.wire() as wire:
        wire.send("job.logs", id=job_id, follow=True)
        for params in ({}, {"tail": 10}, {"offset": 3}):
            assert single.call("job.logs", id=job_id, **params)["text"] == ""
        (directory / "gate").touch()
        assert wire.receive()["result"]["text"] == ""
    assert "request failed" not in single.log.read_text()
