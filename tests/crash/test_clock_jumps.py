"""A wall clock that was set back or forward while no daemon ran, or while one did."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.harness import Daemon, seconds, wait_for

YEAR = 365 * 86_400


def shift_the_past(daemon: Daemon, by: float) -> None:
    """All that the database knows of times, as if they had been read from a clock that was ahead by so much."""
    with closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database, database:
        database.execute("UPDATE totals SET last_seen_time = last_seen_time + ?", (by,))
        database.execute("UPDATE jobs SET run_at = run_at + ?1, created_at = created_at + ?1", (by,))
        database.execute("UPDATE attempts SET started_at = started_at + ?", (by,))
        database.execute("UPDATE workers SET started_at = started_at + ?", (by,))


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["set back", "set forward"])
def test_jobs_that_wait_do_not_wait_for_the_jump_too(make_daemon: Callable[..., Daemon], jump: float) -> None:
    daemon = make_daemon().start()
    ready, soon, late = daemon.enqueue("true"), daemon.enqueue("true", delay=1), daemon.enqueue("true", delay=3600)
    assert daemon.stop() == 0
    shift_the_past(daemon, jump)
    daemon.start("--workers", "1")
    for job_id in (ready, soon):
        daemon.wait_state(job_id, "completed")
    if jump > 0:  # a clock that was set forward has passed the time of the late one too
        job = daemon.job(late)
        assert job["state"] == "pending"
        assert 3000 < seconds(job["run_at"]) - time.time() <= 3600
        assert "clock was set back" in daemon.log.read_text()


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["set back", "set forward"])
def test_a_running_job_is_neither_lost_nor_run_again(make_daemon: Callable[..., Daemon], jump: float) -> None:
    daemon = make_daemon().start("--workers", "1")
    daemon.call("config.set", key="heartbeat_interval", value=0.2)
    daemon.call("config.set", key="heartbeat_timeout", value=30)
    gate = daemon.directory / "gate"
    job_id = daemon.enqueue(f"until [ -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=2, timeout=300)
    daemon.wait_state(job_id, "processing")
    daemon.kill()
    shift_the_past(daemon, jump)
    daemon.start()
    daemon.wait_workers(1, "busy")
    gate.touch()
    job = daemon.wait_state(job_id, "failed", "dead")
    first = job["history"][0]
    assert (first["outcome"], first["exit_code"]) == ("failed", 7)
    assert seconds(first["ended_at"]) >= seconds(first["started_at"]), "it does not end before it began"
    # Its retry is due in two seconds of the clock as it is now.
    assert daemon.wait_state(job_id, "dead")["attempts"] == 2


WALL = """
import os, time
real, file = time.time, os.environ["TEST_WALL_CLOCK"]
def shifted():
    with open(file) as shift:
        return real() + float(shift.read())
time.time = shifted
"""
"""A wall clock for one daemon, that a test can set by writing seconds into a file. Its workers have the real one."""


def set_clock(daemon: Daemon, seconds: float) -> None:
    new = daemon.directory / "wall.new"
    new.write_text(str(seconds))
    new.rename(daemon.directory / "wall")


def test_a_clock_that_was_set_back_under_a_running_daemon(make_daemon: Callable[..., Daemon]) -> None:
    """It comes back to the wall clock; what is due stays due, and no delay grows by the hour."""
    daemon = make_daemon("--workers", "1")
    (daemon.directory / "sitecustomize.py").write_text(WALL)
    daemon.environment["PYTHONPATH"] += f":{daemon.directory}"
    daemon.environment["TEST_WALL_CLOCK"] = str(daemon.directory / "wall")
    set_clock(daemon, 3600)
    daemon.start()
    daemon.wait_workers(1)
    gate = daemon.directory / "gate"
    running = daemon.enqueue(f"until [ -e {gate} ]; do sleep 0.02; done")
    daemon.wait_state(running, "processing")
    ready, soon = daemon.enqueue("true"), daemon.enqueue("true", delay=0.5)
    late = daemon.enqueue("true", delay=7200)
    assert seconds(daemon.job(ready)["created_at"]) > time.time() + 3000
    set_clock(daemon, 0)

    def now() -> bool:
        return seconds(daemon.job(daemon.enqueue("true", delay=86_400))["created_at"]) < time.time() + 60

    wait_for(now, "the daemon's clock to come back to the wall clock")
    assert 7000 < seconds(daemon.job(late)["run_at"]) - time.time() <= 7200
    gate.touch()
    for job_id in (running, ready, soon):
        daemon.wait_state(job_id, "completed")
    assert daemon.job(late)["state"] == "pending"
    assert "clock was set back" in daemon.log.read_text()
    assert daemon.stop() == 0
