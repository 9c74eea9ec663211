"""What a job puts in the place of the daemon's files, or does to its worker, harms no other job and no worker's end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, lines_of, wait_for
from tests.jobs import FOREVER

REPLACEMENTS = {
    "nothing": "",
    "a directory": "mkdir -p {path}/full",
    "a FIFO": "mkfifo {path}",
    "a link to /dev/zero": "ln -s /dev/zero {path}",
    "a link to itself": "ln -s {path} {path}",
    "two gigabytes": "truncate -s 2G {path}",
    "no text": r"""printf '{{"job":1,"attempt":1,"token":"\377"}}' > {path}""",
    "deep nesting": "head -c 200000 /dev/zero | tr '\\0' '[' > {path}",
    "a huge number": 'printf \'{{"job":{number},"attempt":1,"token":"%s","outcome":"failed","ended_at":1,'
    """"exit_code":%0999d}}' "${{QUEUECTL_LEASE%@*}}" 9 > {path}""",
    "a file without permissions": ": > {path}; chmod 0 {path}",
}
"""What the file is replaced by -> how."""

LOSE_THE_WORKER = "kill -9 $PPID; sleep 1000"


def assert_lost(daemon: Daemon, job_id: str) -> None:
    job = daemon.wait_state(job_id, "dead")
    assert [attempt["outcome"] for attempt in job["history"]] == ["lost"]


def test_whatever_is_in_the_place_of_an_exit_record_ends_no_daemon_and_holds_up_no_job(single: Daemon) -> None:
    for number, how in enumerate(REPLACEMENTS.values(), 1):
        put = how.format(path=single.state_dir / "exits" / f"{number}.1.json", number=number)
        assert_lost(single, single.enqueue(f"{put}\n{LOSE_THE_WORKER}", max_retries=1))
    single.wait_workers(1)
    assert single.pid == single.call("server.info")["pid"]


def test_and_none_at_a_start(single: Daemon) -> None:
    job_id = single.enqueue(FOREVER, max_retries=1)
    worker = single.worker_of(job_id)
    single.kill()
    os.kill(worker, signal.SIGKILL)
    for number, how in enumerate(REPLACEMENTS.values(), 1):
        put = how.format(path=single.state_dir / "exits" / f"{number}.1.json", number=number)
        subprocess.run(["/bin/sh", "-c", put], env={"PATH": os.environ["PATH"], "QUEUECTL_LEASE": "x@y"}, check=True)
    os.mkfifo(single.state_dir / "exits" / "100.1.json")
    single.start()
    assert_lost(single, job_id)
    single.wait_workers(1)


def test_whatever_is_in_the_place_of_a_workers_lock_holds_up_no_end(single: Daemon) -> None:
    for how in REPLACEMENTS.values():
        (worker,) = single.wait_workers(1)
        lock = single.state_dir / "workers" / f"{worker['id']}.lock"
        put = how.format(path=lock, number=1)
        assert_lost(single, single.enqueue(f"rm {lock}; {put}\n{LOSE_THE_WORKER}", max_retries=1))
    single.wait_workers(1)
    single.kill()
    single.start()
    single.wait_workers(1)


UNLOCK = "for n in /proc/$$/fd/*; do case $(readlink $n) in *.lock*) flock -u ${n##*/};; esac; done"


@pytest.mark.parametrize("letting_go", [UNLOCK, "rm {state}/workers/*"], ids=["flock -u", "rm"])
@pytest.mark.parametrize("how", ["killed", "re-executed"])
def test_a_job_that_lets_go_of_its_workers_lock_runs_on_and_once(
    single: Daemon, directory: Path, letting_go: str, how: str
) -> None:
    until = f"until test -e {directory}/gate; do sleep 0.02; done"
    letting_go = letting_go.replace("{state}", str(single.state_dir))
    job_id = single.enqueue(f"echo run >> {directory}/trace; {letting_go}; touch {directory}/free; {until}; exit 7",
                            max_retries=1)  # fmt: skip
    wait_for((directory / "free").exists, "the lock to be free")
    if how == "killed":
        single.kill()
        single.start()
    else:
        os.kill(single.pid, signal.SIGHUP)
        wait_for(lambda: single.call("server.info")["generation"] == 1, "the daemon to be re-executed")
    single.wait_workers(1, "busy")
    (directory / "gate").touch()
    history = single.wait_state(job_id, "dead")["history"]
    assert [(attempt["outcome"], attempt["exit_code"]) for attempt in history] == [("failed", 7)]
    assert lines_of(directory / "trace") == ["run"]


def test_a_directory_in_the_place_of_the_mark_of_a_running_daemon_spoils_no_stop(single: Daemon) -> None:
    running = single.state_dir / "running"
    single.wait_state(single.enqueue(f"rm {running}; mkdir -p {running}/full"), "completed")
    assert single.stop() == 0
    assert not single.socket.exists()


@pytest.mark.parametrize("is_read", [False, True])
def test_a_pipe_in_the_place_of_the_next_jobs_log_makes_no_worker_wait(single: Daemon, is_read: bool) -> None:
    path = single.state_dir / "logs" / "0" / "2.1.log"
    single.wait_state(single.enqueue(f"mkfifo {path}; echo so the log is not given to the next"), "completed")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    job_id = single.enqueue("echo out", max_retries=2)
    job = single.wait_state(job_id, "completed")
    assert [attempt["outcome"] for attempt in job["history"]] == ["completed"]
    assert single.output(job_id) == "out\n"
    if reader is not None:
        os.close(reader)


@pytest.fixture
def without_threads(directory: Path) -> Iterator[tuple[Daemon, Callable[[bool], None]]]:
    """A daemon with one worker, and what takes it the room for new threads' stacks, or gives it back."""
    daemon = Daemon(directory, "--workers", "1")
    daemon.launcher = ["prlimit", "--stack=1073741824:unlimited", "--"]
    try:
        daemon.start()
        daemon.call("config.set", key="backoff_base", value=0)
        daemon.wait_workers(1)

        def take(taken: bool) -> None:
            status = Path(f"/proc/{daemon.pid}/status").read_text()
            size = int(status.split("VmSize:")[1].split()[0]) * 1024
            room = size + 256 * 1024 * 1024 if taken else resource.RLIM_INFINITY
            resource.prlimit(daemon.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))

        yield daemon, take
    finally:
        daemon.clean_up()


def test_all_requests_and_a_stop_while_no_thread_can_be_started(
    without_threads: tuple[Daemon, Callable[[bool], None]],
) -> None:
    """Threads that a request needs were started before."""
    daemon, take = without_threads
    take(True)
    job_id = daemon.enqueue("echo seen")
    daemon.wait_state(job_id, "completed")
    assert job_id in str(daemon.call("job.list", state="completed"))
    assert daemon.call("job.logs", id=job_id)["text"] == "seen\n"
    assert daemon.call("server.backup", path=str(daemon.directory / "copy.db"))["bytes"] > 0
    daemon.call("config.set", key="keep_completed_count", value=1)
    daemon.wait_state(daemon.enqueue("true"), "completed")
    wait_for(lambda: daemon.call("status.get")["counts"]["completed"] == 1, "the sweep")
    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 0


def test_a_lost_worker_while_no_thread_can_be_started(
    without_threads: tuple[Daemon, Callable[[bool], None]],
) -> None:
    daemon, take = without_threads
    job_id = daemon.enqueue(f"test $QUEUECTL_ATTEMPT = 2 || {FOREVER}")
    worker = daemon.worker_of(job_id)
    take(True)
    os.kill(worker, signal.SIGKILL)
    job = daemon.wait_state(job_id, "completed")
    assert [attempt["outcome"] for attempt in job["history"]] == ["lost", "completed"]
