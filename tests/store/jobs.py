"""Makes what the tests of the stores put in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from queuectl_protocol.jobs import JobState, Outcome
from queuectld.core.choice import Asker, Wait, choose
from queuectld.store.base import NewJob, ReadyJob, Store
from queuectld.store.sqlite import SqliteStore, open_store

NOW = 1_700_000_000.0
ASKER = Asker("w1")


def new_job(
    job_id: str,
    *,
    queue: str = "default",
    priority: int = 0,
    run_at: float = NOW,
    max_retries: int = 3,
    command: str | None = "true",
    argv: list[str] | None = None,
    env: dict[str, str] | None = None,
    exact_env: bool = False,
    cwd: str | None = None,
    label: str = "",
    timeout: float = 0.0,
) -> NewJob:
    job = NewJob(
        id=job_id,
        digest=b"",
        queue=queue,
        priority=priority,
        run_at=run_at,
        max_retries=max_retries,
        timeout=timeout,
        label=label,
        command=command,
        argv=argv,
        cwd=cwd,
        env=env,
        exact_env=exact_env,
    )
    return msgspec.structs.replace(job, digest=hashlib.sha256(msgspec.json.encode(job)).digest())


def next_ready(store: Store, now: float) -> ReadyJob | None:
    """What a worker gets that asks for a job."""
    decision = choose(store.heads, ASKER, now)
    return None if isinstance(decision, Wait) else store.runnable(decision.head.job)


def next_due(store: Store, now: float) -> float | None:
    """Until when a worker waits that gets none; None also where it gets one."""
    decision = choose(store.heads, ASKER, now)
    return decision.until if isinstance(decision, Wait) else None


def put(store: Store, *jobs: NewJob, now: float = NOW) -> list[int]:
    """Insert in a transaction of its own; the numbers."""
    store.begin()
    assert store.insert(jobs, now).contradicted == {}
    store.commit()
    return [store.resolve(job.id)[0][0] for job in jobs]


def end(
    store: Store,
    number: int,
    attempt: int,
    state: JobState = JobState.COMPLETED,
    *,
    outcome: Outcome = Outcome.COMPLETED,
    attempts: int = 1,
    run_at: float = NOW,
    now: float = NOW,
) -> None:
    """The end of an attempt, inside of a transaction."""
    failed = outcome is not Outcome.COMPLETED
    store.end_attempt(
        number,
        attempt,
        outcome=outcome,
        exit_code=1 if failed else 0,
        signal=None,
        error="it failed" if failed else None,
        state=state,
        attempts=attempts,
        run_at=run_at,
        ended_at=now,
        now=now,
    )


def bring(store: Store, number: int, state: JobState) -> None:
    """Bring a pending job into `state`, in a transaction of its own."""
    store.begin()
    if state is JobState.CANCELLED:
        store.update(number, state=state, attempts=0, run_at=NOW, cancelling=False, now=NOW)
    elif state is not JobState.PENDING:
        store.start_attempt(number, 1, "token", "w1", NOW)
        if state is not JobState.PROCESSING:
            completed = state is JobState.COMPLETED
            end(store, number, 1, state, outcome=Outcome.COMPLETED if completed else Outcome.FAILED)
    store.commit()


def sqlite_store(directory: Path) -> SqliteStore:
    return open_store(directory / "queue.db")
