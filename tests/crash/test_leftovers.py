"""What the killed leave behind is found and removed; what lives is left alone."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import Daemon, is_running, wait_for
from tests.jobs import FOREVER, pids_in


def test_a_reload_is_not_disturbed_by_the_end_of_a_dead_workers_tree(pool: Daemon) -> None:
    """Found by the kill storm: the check of the successor, a child of the daemon, was ended as an orphan."""
    workers = pool.workers()
    os.kill(pool.pid, signal.SIGHUP)
    # The check takes a Python's start: while it goes on, one tree after the other is ended.
    for worker in workers:
        os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: pool.call("server.info")["generation"] == 1, "the daemon to be re-executed")
    assert "not re-executed" not in pool.log.read_text()


@pytest.mark.parametrize("name", ["exits/7.1.json", "exits/7.1.tmp", "workers/w7.lock"])
def test_a_start_removes_what_the_killed_have_left(make_daemon: Callable[..., Daemon], name: str) -> None:
    daemon = make_daemon().start()
    daemon.kill()
    stale = daemon.state_dir / name
    stale.write_text("{")
    daemon.start()
    assert not stale.exists()


def test_a_start_leaves_a_lock_alone_that_somebody_holds(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.kill()
    path = daemon.state_dir / "workers" / "w7.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon.start()
        assert path.exists()


def test_workers_and_attempts_that_end_in_order_leave_no_files(pool: Daemon) -> None:
    pool.wait_state(pool.enqueue("true"), "completed")
    assert pool.stop() == 0
    left: list[Path] = [*(pool.state_dir / "workers").iterdir(), *(pool.state_dir / "exits").iterdir()]
    assert left == []


def test_a_worker_has_time_to_come_back_however_short_its_heartbeats_are(single: Daemon) -> None:
    """Found by the kill storm: it tries once a second, and was taken for silent before it had."""
    job = single.enqueue("sleep 3; exit 7", max_retries=1)
    worker = single.worker_of(job)
    os.kill(worker, signal.SIGSTOP)
    single.call("config.set", key="heartbeat_interval", value=0.1)
    single.call("config.set", key="heartbeat_timeout", value=0.5)
    single.kill()
    began = time.monotonic()
    single.start()
    wait_for(lambda: time.monotonic() > began + 2, "four timeouts to pass")
    os.kill(worker, signal.SIGCONT)
    ended = single.wait_state(job, "dead")
    assert [(attempt["outcome"], attempt["exit_code"]) for attempt in ended["history"]] == [("failed", 7)]


def test_the_pid_of_a_dead_worker_may_be_a_threads_by_now(single: Daemon) -> None:
    job_id = single.enqueue(FOREVER, max_retries=1)
    worker = single.worker_of(job_id)
    single.kill()
    os.kill(worker, signal.SIGKILL)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with closing(sqlite3.connect(single.state_dir / "queue.db", isolation_level=None)) as database:
            database.execute("UPDATE workers SET pid = ? WHERE pid = ?", (thread.native_id, worker))
        single.start()
        assert [attempt["outcome"] for attempt in single.wait_state(job_id, "dead")["history"]] == ["lost"]
        single.wait_workers(1)
    finally:
        done.set()
        thread.join()


def test_a_lost_workers_job_is_ended_though_the_state_directory_is_gone(single: Daemon) -> None:
    pids = single.directory / "pids"
    worker = single.worker_of(single.enqueue(f"echo $$ > {pids}; {FOREVER}"))
    (job,) = pids_in(pids, 1)
    shutil.rmtree(single.state_dir)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not is_running(job), "the job to be ended")
