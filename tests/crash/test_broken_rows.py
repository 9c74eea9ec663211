"""One row that can't be processed must not block all others: it is told what is wrong with it, and the rest goes on."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from queuectld import failpoints
from tests.harness import PATIENCE, Daemon

BREAKAGES = {
    "arguments that are no JSON": "UPDATE jobs SET argv = '[\"true\"' WHERE id = 'broken'",
    "arguments of another type": "UPDATE jobs SET argv = '{\"a\": 1}' WHERE id = 'broken'",
    "neither command nor arguments": "UPDATE jobs SET argv = NULL WHERE id = 'broken'",
    "text that is not UTF-8": "UPDATE jobs SET argv = CAST(x'5b22ff225d' AS TEXT) WHERE id = 'broken'",
    "a queue that is not UTF-8": "UPDATE jobs SET queue = CAST(x'ff' AS TEXT) WHERE id = 'broken'",
    "an environment that is no JSON": "UPDATE environments SET variables = '{' WHERE number = 1",
    "a time that is none": "UPDATE jobs SET run_at = 'soon' WHERE id = 'broken'",
    "a number that is none": "UPDATE jobs SET max_retries = 'many' WHERE id = 'broken'",
    "a timeout that is none": "UPDATE jobs SET timeout = x'00ff' WHERE id = 'broken'",
}


def break_row(daemon: Daemon, statement: str) -> None:
    """While no daemon runs."""
    with closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database, database:
        assert database.execute(statement).rowcount == 1


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_row_is_dead_with_the_reason_and_others_run(make_daemon: Callable[..., Daemon], what: str) -> None:
    daemon = make_daemon().start()
    daemon.call("job.enqueue", jobs=[{"id": "broken", "argv": ["true"], "env": {"A": "1"}, "priority": 9}])
    daemon.call("job.enqueue", jobs=[{"id": f"good{n}", "command": "true"} for n in range(3)])
    assert daemon.stop() == 0
    break_row(daemon, BREAKAGES[what])
    daemon.start()
    assert {job["id"] for job in daemon.call("job.list")["jobs"]} == {"broken", "good0", "good1", "good2"}
    daemon.call("worker.start", count=2)
    for n in range(3):
        daemon.wait_state(f"good{n}", "completed")
    job = daemon.wait_state("broken", "dead")
    assert "can't be read" in job["error"]
    assert job["error"] == job["history"][-1]["error"]
    assert "broken" in daemon.log.read_text()
    # It can be looked at like every other one, and got rid of.
    assert {found["id"] for found in daemon.call("job.list")["jobs"]} == {"broken", "good0", "good1", "good2"}
    counts = daemon.call("status.get")["counts"]
    assert (counts["dead"], counts["completed"], counts["pending"]) == (1, 3, 0)
    assert [found["id"] for found in daemon.call("dlq.list")["jobs"]] == ["broken"]
    # Asked for again, it comes to the same end, and again nobody is held up.
    daemon.call("dlq.retry", ids=["broken"])
    if what == "a time that is none":
        daemon.wait_state("broken", "completed")  # it was given a time when it was given up
    else:
        daemon.wait_state("broken", "dead")
        assert daemon.call("dlq.purge", ids=["broken"])["count"] == 1
    daemon.wait_state(daemon.enqueue("true"), "completed")
    assert "Traceback" not in daemon.log.read_text()


def test_who_waits_for_a_broken_job_hears_of_its_end(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.call("job.enqueue", jobs=[{"id": "broken", "argv": ["true"]}])
    assert daemon.stop() == 0
    break_row(daemon, BREAKAGES["arguments that are no JSON"])
    daemon.start()
    with daemon.wire() as wire:
        number = wire.send("job.wait", ids=["broken"])
        wire.send("job.logs", id="broken", follow=True)
        daemon.call("worker.start", count=1)
        replies: dict[int, Any] = {reply["id"]: reply["result"] for reply in (wire.receive(), wire.receive())}
    assert replies[number]["jobs"][0]["state"] == "dead"
    assert "can't be read" in replies[number]["jobs"][0]["error"]


def test_a_worker_whose_job_can_not_be_told_again_does_not_keep_it_for_ever(
    make_daemon: Callable[..., Daemon],
) -> None:
    """Its lease was committed and never reached it; meanwhile the row has been broken."""
    daemon = make_daemon()
    daemon.environment[failpoints.VARIABLE] = "lease.committed"
    daemon.environment[failpoints.MARK_VARIABLE] = str(daemon.directory / "mark")
    daemon.start("--workers", "1")
    daemon.wait_workers(1)
    daemon.call("config.set", key="backoff_base", value=0)
    daemon.call("job.enqueue", jobs=[{"id": "broken", "argv": ["true"]}])
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE) == -signal.SIGKILL
    del daemon.environment[failpoints.VARIABLE]
    break_row(daemon, BREAKAGES["arguments that are no JSON"])
    daemon.start()
    job = daemon.wait_state("broken", "dead")
    assert [attempt["outcome"] for attempt in job["history"]] == ["lost", "failed"]
    daemon.wait_state(daemon.enqueue("true"), "completed")
    assert "Traceback" not in daemon.log.read_text()
