"""Jobs that write down their own executions, and what must be true of a daemon's state however it was treated."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.harness import Daemon, RefusedError, lines_of, wait_for

QUICK = {"backoff_base": 0, "kill_grace": 0.5, "shutdown_timeout": 0.3}
"""Settings under which nothing waits for long."""


class Witness:
    """A journal that does not depend on queuectl, and the jobs that keep it.

    Each execution takes a lock of its job's; one that finds it taken overlaps another. The lock is inherited by all
    that the job starts, so what an earlier execution left behind counts too.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "witness"
        self.directory.mkdir()

    def job(self, job_id: str, body: str = "", exit_code: int = 0, **fields: Any) -> dict[str, Any]:
        """A job; `body` is what it does between its two notes, `exit_code` how it ends."""
        home = self.directory
        command = f"""
            exec 8>>{home}/lock.{job_id}
            flock --nonblock 8 || echo overlap {job_id} >>{home}/journal
            tr '\\0' '\\n' </proc/self/environ | grep -q FAILPOINT && echo leak {job_id} >>{home}/journal
            echo begin {job_id} >>{home}/journal
            {body}
            echo end {job_id} >>{home}/journal
            exit {exit_code}"""
        return {"id": job_id, "command": command, **fields}

    def gated(self, job_id: str, exit_code: int = 0, **fields: Any) -> dict[str, Any]:
        """A job that runs until its gate is opened."""
        return self.job(job_id, f"until [ -e {self._gate(job_id)} ]; do sleep 0.02; done", exit_code, **fields)

    def open_gate(self, job_id: str) -> None:
        self._gate(job_id).touch()

    def _gate(self, job_id: str) -> Path:
        return self.directory / f"gate.{job_id}"

    def count(self, word: str, job_id: str) -> int:
        return Counter(lines_of(self.directory / "journal"))[f"{word} {job_id}"]

    def wait_begun(self, job_id: str, times: int = 1) -> None:
        wait_for(lambda: self.count("begin", job_id) >= times, f"job {job_id} to begin")

    def check(self, words: Iterable[str] = ("overlap", "leak")) -> None:
        """No execution overlapped another of its job; none saw a variable that is for the daemon."""
        lines = lines_of(self.directory / "journal")
        assert [line for line in lines if line.split()[0] in words] == []


def offer(daemon: Daemon, jobs: Iterable[dict[str, Any]]) -> list[str]:
    """Enqueue one by one, as long as the daemon answers; the ids that it acknowledged."""
    acknowledged: list[str] = []
    try:
        with daemon.wire() as wire:
            for job in jobs:
                ids = wire.call("job.enqueue", jobs=[job])["ids"]
                assert ids == [job["id"]]
                acknowledged += ids
    except (OSError, RefusedError):
        pass
    return acknowledged


def jobs_of(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """All jobs, each with its attempts."""
    found: dict[str, dict[str, Any]] = {}
    after: dict[str, Any] = {}
    while True:
        page = daemon.call("job.list", limit=500, **after)
        for job in page["jobs"]:
            found[job["id"]] = daemon.job(job["id"])
        if not page.get("next"):
            return found
        after = {"after": page["next"]}


def check_counts(daemon: Daemon) -> None:
    """What is counted as it changes is what there is."""
    tally = Counter(job["state"] for job in jobs_of(daemon).values())
    counts = daemon.call("status.get")["counts"]
    assert counts == {state: tally[state] for state in counts}


def check_jobs(daemon: Daemon, witness: Witness, *, lost: int | None = None) -> dict[str, dict[str, Any]]:
    """Every job has ended, and its attempts are what the journal of executions says.

    Args:
        daemon: asked.
        witness: compared.
        lost: how many attempts may have been lost, in all jobs together, exactly; None: any number.
    """
    jobs = jobs_of(daemon)
    losses = 0
    for job in jobs.values():
        history = job["history"]
        outcomes = [attempt["outcome"] for attempt in history]
        assert job["state"] in ("completed", "dead", "cancelled"), job
        assert [attempt["number"] for attempt in history] == list(range(1, len(history) + 1)), job
        assert None not in outcomes, job
        counted = sum(attempt["outcome"] != "interrupted" or attempt["error"] is not None for attempt in history)
        assert job["attempts"] == counted <= max(1, job["max_retries"]), job
        # An attempt that was lost may have been lost before its job was spawned; every other one was an execution.
        assert len(history) - outcomes.count("lost") <= witness.count("begin", job["id"]) <= len(history), job
        ended_by_themselves = outcomes.count("completed") + outcomes.count("failed")
        assert ended_by_themselves <= witness.count("end", job["id"]) <= len(history), job
        losses += outcomes.count("lost")
    if lost is not None:
        assert losses == lost, jobs
    check_counts(daemon)
    witness.check()
    return jobs


def check_left(daemon: Daemon) -> None:
    """After a clean stop: no record, lock, mark or temporary file, and a sound database."""
    files = {str(path.relative_to(daemon.state_dir)) for path in daemon.state_dir.rglob("*") if path.is_file()}
    left = {name for name in files if not name.startswith("logs/")}
    assert left - {"queue.db", "queue.db-wal", "queue.db-shm", "daemon.lock", "reserve"} == set()
    assert not daemon.socket.exists()
    numbers, findings = _database(daemon.state_dir / "queue.db")
    assert findings == ["ok"]
    logs = {int(Path(name).name.partition(".")[0]) for name in files if name.startswith("logs/")}
    assert logs <= numbers, "logs of jobs that are gone"


def _database(path: Path) -> tuple[set[int], list[str]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        numbers = {number for (number,) in connection.execute("SELECT number FROM jobs")}
        return numbers, [text for (text,) in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()
