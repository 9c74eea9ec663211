"""The empty log of one attempt becomes the log of the next: nobody ever reads or writes another job's output."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from queuectld.attempt_files import log_reading
from queuectld.attempt_files.log_files import LogFiles, log_path
from tests.harness import Daemon


def run(daemon: Daemon, command: str, number: int) -> tuple[str, Path]:
    """The id of the queue's so-manyeth job, and where its log is, or would be."""
    job_id = daemon.enqueue(command)
    daemon.wait_state(job_id, "completed")
    return job_id, log_path(daemon.state_dir, number, 1)


def test_the_file_of_a_silent_job_goes_to_the_next_one(single: Daemon) -> None:
    silent, first = run(single, "true", 1)
    inode = first.stat().st_ino
    loud, second = run(single, "echo loud", 2)
    assert second.stat().st_ino == inode
    assert not first.exists()
    _, third = run(single, "echo too", 3)
    assert third.stat().st_ino != inode
    assert (single.output(silent), single.output(loud)) == ("", "loud\n")
    assert single.queuectl("logs", silent).stdout == ""
    assert second.stat().st_mode & 0o777 == 0o600


def test_output_that_comes_after_the_end_is_not_the_next_jobs(single: Daemon, directory: Path) -> None:
    """A job can give its output to a process that is none of its tree (systemd-run --pipe does)."""
    gate = directory / "gate"
    os.mkfifo(gate)
    job_id = single.enqueue(f"cat {gate}")
    single.wait_state(job_id, "processing")
    path = log_path(single.state_dir, 1, 1)
    with gate.open("wb"), path.open("ab", buffering=0) as stranger:
        pass_on = os.dup(stranger.fileno())
    single.wait_state(job_id, "completed")
    loud, other = run(single, "echo loud", 2)
    os.write(pass_on, b"of the first\n")
    os.close(pass_on)
    assert other.read_text() == single.output(loud) == "loud\n"
    assert single.output(job_id) == "of the first\n"


def test_a_log_that_retention_has_removed_is_not_missed(single: Daemon) -> None:
    _, first = run(single, "true", 1)
    first.unlink()
    loud, second = run(single, "echo loud", 2)
    assert second.exists()
    assert single.output(loud) == "loud\n"


def test_who_reads_the_old_name_never_sees_what_is_written_under_the_new_one(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    attempts = 1500
    reading = threading.Event()

    def work() -> None:
        for number in range(1, attempts + 1):
            descriptor = files.open(number, 1)
            if number % 2 == 0:  # the one before was silent, so this one has its file
                os.write(descriptor, b"of another job")
            os.close(descriptor)
        reading.set()

    os.close(files.open(0, 1))
    worker = threading.Thread(target=work)
    worker.start()
    seen = b""
    number = 1
    while not reading.is_set():
        path = log_path(tmp_path, number, 1)
        seen += log_reading.read_piece(path, 0).data
        assert log_reading.offset_of_tail(path, 1) == 0
        if log_path(tmp_path, number + 1, 1).exists():
            number = min(number + 2, attempts - 1)  # always one that says nothing
    worker.join()
    assert seen == b""


def test_a_pipe_in_the_place_of_a_log_holds_nobody_up(single: Daemon) -> None:
    path = log_path(single.state_dir, 1, 1)
    run(single, f"rm {path}; mkfifo {path}", 1)
    loud, second = run(single, "echo loud", 2)
    assert second.is_file()
    assert single.output(loud) == "loud\n"


def test_a_log_with_a_second_name_is_left_alone(single: Daemon, directory: Path) -> None:
    path = log_path(single.state_dir, 1, 1)
    run(single, f"ln {path} {directory}/mine", 1)
    run(single, "echo loud", 2)
    assert (directory / "mine").read_text() == ""


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "directory", "unreadable"])
def test_what_a_job_puts_in_the_place_of_a_later_log_does_not_block_its_worker(
    single: Daemon, directory: Path, kind: str
) -> None:
    run(single, "echo first", 1)
    path, victim = log_path(single.state_dir, 2, 1), directory / "victim"
    victim.write_text("kept\n")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(victim)
        case "device" if os.geteuid() == 0:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        case "directory":
            path.mkdir()
        case _:
            path.write_text("secret")
            path.chmod(0)
    job_id = single.enqueue("echo second", max_retries=1)
    done = single.wait_state(job_id, "completed", "dead")
    if kind == "directory":
        assert (done["state"], done["error"]) == ("dead", f"can't open its log {path}: Is a directory")
    else:
        assert (done["state"], single.output(job_id)) == ("completed", "second\n")
    assert victim.read_text() == "kept\n"
