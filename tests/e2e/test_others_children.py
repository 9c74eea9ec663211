"""A daemon may have children that no worker of its has left: as PID 1 of a container, or by how it was started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Daemon, is_running, lines_of, processes_with, wait_for

LOSE_THE_WORKER = "kill -9 $PPID; sleep 1000"


def assert_lost(daemon: Daemon, job_id: str) -> None:
    assert [attempt["outcome"] for attempt in daemon.wait_state(job_id, "dead")["history"]] == ["lost"]


def test_what_its_starter_had_started_before_it_became_the_daemon(
    make_daemon: Callable[..., Daemon], directory: Path
) -> None:
    daemon = make_daemon("--workers", "1")
    daemon.launcher = ["sh", "-c", f'setsid sleep 1000 & echo $! > {directory}/pid; exec "$@"', "sh"]
    daemon.start()
    (pid,) = map(int, lines_of(directory / "pid"))
    assert_lost(daemon, daemon.enqueue(LOSE_THE_WORKER, max_retries=1))
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the daemon to be re-executed")
    assert_lost(daemon, daemon.enqueue(LOSE_THE_WORKER, max_retries=1))
    daemon.wait_workers(1)
    assert is_running(pid)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed")
def test_orphans_of_others_that_come_to_pid_1(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("--workers", "1")
    daemon.launcher = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
    daemon.start()
    assert daemon.call("server.info")["pid"] == 1
    (inside,) = map(int, Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split())
    mark = f"{daemon.directory}/other"
    # One process only: a shell in a loop is two of the same name for moments.
    other = f"sh -c 'OTHER={mark} exec setsid -f sleep 1000000'; setsid -f sh -c 'exit 3'"
    subprocess.run(["nsenter", "-t", str(inside), "-p", "-m", "sh", "-c", other], check=True, env={})
    wait_for(lambda: processes_with(mark), "the other program to run")
    for command in (LOSE_THE_WORKER, f"sleep 1000 & {LOSE_THE_WORKER}", "kill $PPID; sleep 1000"):
        job = daemon.wait_state(daemon.enqueue(command, max_retries=1), "dead")
        assert len(job["history"]) == 1
        daemon.wait_workers(1)
    (pid,) = processes_with(mark)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it to be collected")
