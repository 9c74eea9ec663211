"""A wall clock that was set back or forward while no daemon ran."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.harness import Daemon, seconds

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
