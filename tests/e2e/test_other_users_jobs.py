"""A job may become another user, whom a daemon that is not root can't signal. The rest of it ends all the same."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Daemon, is_running, lines_of, wait_for

WITHOUT_POWER = "--bounding-set=-kill,-sys_ptrace,-dac_override,-dac_read_search"
"""What makes root signal only its own processes, as any other user does."""


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed"),
]


def test_who_can_not_be_signalled_does_not_keep_the_others_alive(
    directory: Path, reachable: Callable[[Daemon], Daemon]
) -> None:
    daemon = reachable(Daemon(directory, "--workers", "1"))
    daemon.launcher = ["setpriv", WITHOUT_POWER, "--inh-caps=-all"]
    try:
        daemon.start()
        daemon.call("config.set", key="kill_grace", value=0.2)
        script = (
            f"setpriv --reuid 65534 --clear-groups sleep 4 & echo $! > {directory}/other; "
            f"sleep 600 & echo $! > {directory}/own; wait"
        )
        job = daemon.enqueue(script, max_retries=1)
        wait_for(lambda: lines_of(directory / "own") and lines_of(directory / "other"), "the job to begin")
        (own,), (other,) = lines_of(directory / "own"), lines_of(directory / "other")
        daemon.call("job.cancel", ids=[job])
        wait_for(lambda: not is_running(int(own)), "the process that can be signalled to end")
        assert daemon.wait_state(job, "cancelled")["attempts"] == 1
        assert not is_running(int(other))  # the proof waited for it
        assert daemon.stop() == 0
    finally:
        daemon.clean_up()
    assert "Traceback" not in daemon.log.read_text()


def test_one_that_can_not_be_ended_holds_up_its_own_job_only(
    directory: Path, reachable: Callable[[Daemon], Daemon]
) -> None:
    daemon = reachable(Daemon(directory, "--workers", "1"))
    daemon.launcher = ["setpriv", WITHOUT_POWER, "--inh-caps=-all"]
    try:
        daemon.start()
        script = (
            f"setpriv --reuid 65534 --clear-groups sleep 1000 & echo $! > {directory}/other; "
            "until grep -q 65534 /proc/$!/status; do sleep 0.01; done; kill -9 $PPID; wait"
        )
        held_up = daemon.enqueue(script, max_retries=1)
        (other,) = wait_for(lambda: lines_of(directory / "other"), "the job to begin")
        wait_for(lambda: [worker["state"] for worker in daemon.workers()] == ["ending"], "its worker to be killed")
        daemon.call("worker.start", count=1)
        for _ in range(2):
            lost = daemon.enqueue("kill -9 $PPID; sleep 1000", max_retries=1)
            daemon.wait_state(lost, "dead")
        assert is_running(int(other))
        assert daemon.job(held_up)["state"] == "processing"
        os.kill(int(other), signal.SIGKILL)
        daemon.wait_state(held_up, "dead")
    finally:
        daemon.clean_up()
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("hidepid", [1, 2])
def test_where_processes_of_others_are_hidden(
    directory: Path, reachable: Callable[[Daemon], Daemon], hidepid: int
) -> None:
    """With `hidepid` (proc(5)) even their state is; here that of all which have a power that the daemon has not."""
    hide = f'mount -t proc -o hidepid={hidepid},gid=54321 proc /proc && exec "$@"'
    daemon = reachable(Daemon(directory, "--workers", "1"))
    daemon.launcher = ["unshare", "-m", "sh", "-c", hide, "sh", "setpriv", WITHOUT_POWER, "--inh-caps=-all"]
    try:
        daemon.start()
        for key in ("kill_grace", "backoff_base"):
            daemon.call("config.set", key=key, value=0)
        hidden = daemon.enqueue("cat /proc/1/stat", max_retries=1)
        assert daemon.wait_state(hidden, "dead")["exit_code"] == 1
        sleepers = f"sleep 1000 & echo $! >> {directory}/pids; setsid sleep 1000 & echo $! >> {directory}/pids; wait"
        cancelled = daemon.enqueue(sleepers)
        wait_for(lambda: len(lines_of(directory / "pids")) == 2, "the job to begin")
        daemon.call("job.cancel", ids=[cancelled])
        daemon.wait_state(cancelled, "cancelled")
        lost = daemon.enqueue(sleepers, max_retries=1)
        wait_for(lambda: len(lines_of(directory / "pids")) == 4, "the job to begin")
        os.kill(daemon.worker_of(lost), signal.SIGKILL)
        assert [one["outcome"] for one in daemon.wait_state(lost, "dead")["history"]] == ["lost"]
        assert not [pid for pid in lines_of(directory / "pids") if is_running(int(pid))]
        kept = daemon.enqueue(f"until test -e {directory}/gate; do sleep 0.02; done", max_retries=1)
        daemon.worker_of(kept)
        daemon.kill()
        daemon.start()
        (directory / "gate").touch()
        daemon.wait_state(kept, "completed")
        assert daemon.stop() == 0
    finally:
        daemon.clean_up()
    assert "Traceback" not in daemon.log.read_text()
