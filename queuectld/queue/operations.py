"""What is done inside a transaction: each function reads state, lets core decide, and writes the decision.

They run in the committer's thread, so they touch nothing but the store and their arguments.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from queuectl_protocol.errors import ProtocolError, cut
from queuectl_protocol.ids import Ids
from queuectl_protocol.jobs import ENDED, WAITING, JobSpec, JobState, Outcome
from queuectl_protocol.messages import AttemptResult, JobSummary, Lease
from queuectld.core import lifecycle, repeats
from queuectld.core.lifecycle import Event
from queuectld.core.settings import Settings
from queuectld.store.base import Deleted, JobRecord, NewJob, Reader, ReadyJob, RunningAttempt, Store, UnreadableJob

_ids = Ids()


def find(store: Reader, ref: str) -> JobRecord:
    """The job whose id is `ref`, or the only one whose id begins with it.

    Raises:
        ProtocolError: `not_found`, or `conflict` where several ids begin with it.
    """
    found = store.resolve(ref)
    if not found:
        raise ProtocolError("not_found", f"there is no job {ref}", "`queuectl list --state all` shows all jobs")
    if len(found) > 1:
        examples = ", ".join(job_id for _, job_id in found)
        raise ProtocolError("conflict", f"several jobs begin with {ref}: {examples} ...", "give more of the id")
    record = store.get(found[0][0])
    if record is None:
        raise ProtocolError("not_found", f"there is no job {ref}", "it was removed just now")
    return record


def find_all(store: Reader, refs: Iterable[str]) -> list[JobRecord]:
    """Each job once, in the order in which they are first named."""
    return list({record.number: record for record in (find(store, ref) for ref in refs)}.values())


def _those_there(store: Reader, ids: Iterable[str]) -> list[JobRecord]:
    """Of these ids, not prefixes, the jobs that are there; each once."""
    found = [(number, job_id, ref) for ref in ids for number, job_id in store.resolve(ref)]
    numbers = dict.fromkeys(number for number, job_id, ref in found if job_id == ref)
    return [record for number in numbers if (record := store.get(number)) is not None]


T = TypeVar("T")


def _where_allowed(records: Iterable[JobRecord], change: Callable[[JobRecord], T]) -> list[T]:
    """What `change` gives for each job, without those whose state does not allow it; it says so before it writes."""
    changed: list[T] = []
    for record in records:
        try:
            changed.append(change(record))
        except ProtocolError as error:
            if error.kind != "invalid_state":
                raise
    return changed


def summary(record: JobRecord) -> JobSummary:
    return JobSummary(id=record.id, state=record.state, exit_code=record.exit_code, error=record.error)


def summary_of_end(record: JobRecord) -> JobSummary | None:
    """None where the job has not ended."""
    return summary(record) if is_ended(record.state) else None


# --- asking for work ------------------------------------------------------------------------------------------------


def enqueue_all(store: Store, requests: Iterable[tuple[Sequence[JobSpec], Settings]], now: float) -> list[list[str]]:
    """Insert the jobs of all requests, each with the settings that held for it, or none; the ids, request by request.

    Raises:
        ProtocolError: `conflict` where an id is taken by another job; it names the fields that differ.
    """
    asked = [*requests]
    made = [[_new_job(spec, settings, now) for spec in specs] for specs, settings in asked]
    taken = store.insert([job for jobs in made for job in jobs], now)
    if taken:
        for (specs, settings), jobs in zip(asked, made, strict=True):
            for spec, job in zip(specs, jobs, strict=True):
                if job.id in taken:
                    _check_same(store, spec, job.id, taken[job.id], settings)
    return [[job.id for job in jobs] for jobs in made]


def _check_same(store: Store, spec: JobSpec, job_id: str, digest: bytes, settings: Settings) -> None:
    """
    Raises:
        ProtocolError: `conflict` where the job that has the id is another one.
    """
    there = store.job(store.resolve(job_id)[0][0], env=True)
    assert there is not None, "it is there in this transaction"  # noqa: S101
    names = repeats.differing(spec, there, digest, settings)
    if names:
        fields = f"{', '.join(f'`{name}`' for name in names[:-1])} and `{names[-1]}`" if names[1:] else f"`{names[0]}`"
        raise ProtocolError(
            "conflict", f"job {job_id} is there already, and differs in {fields}", "nothing was enqueued"
        )


def _new_job(spec: JobSpec, settings: Settings, now: float) -> NewJob:
    return NewJob(
        id=spec.id or _ids.make(),
        digest=repeats.digest(spec),
        queue=spec.queue,
        priority=spec.priority,
        run_at=now + spec.delay,
        max_retries=settings.max_retries if spec.max_retries is None else spec.max_retries,
        timeout=settings.job_timeout if spec.timeout is None else spec.timeout,
        label=spec.label,
        command=spec.command,
        argv=spec.argv,
        cwd=spec.cwd,
        env=spec.env,
        exact_env=spec.exact_env,
    )


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job after a cancel: ended at once, or its running attempt is to be ended."""

    job: JobRecord
    running: RunningAttempt | None


def cancel(store: Store, refs: Sequence[str], now: float, *, tolerant: bool = False) -> list[Cancelled]:
    """Cancel waiting jobs; mark running ones, so that whatever happens from now on, they are not run again.

    Args:
        store: the store.
        refs: ids or prefixes; only ids where it is tolerant.
        now: UNIX seconds.
        tolerant: pass over what is not there, and jobs that have ended.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is cancelled.
    """
    if tolerant:
        return _where_allowed(_those_there(store, refs), lambda record: _cancel(store, record, now))
    return [_cancel(store, record, now) for record in find_all(store, refs)]


def _cancel(store: Store, job: JobRecord, now: float) -> Cancelled:
    if job.state is JobState.CANCELLED or job.cancelling:
        return Cancelled(job, store.running_attempt(job.number))  # asked for twice is no error
    after = lifecycle.move(job.id, job.state, Event.CANCEL)
    running = store.running_attempt(job.number) if job.state is JobState.PROCESSING else None
    if running is not None:
        after = job.state
    store.update(
        job.number, state=after, attempts=job.attempts, run_at=job.run_at, cancelling=running is not None, now=now
    )
    return Cancelled(_get(store, job.number), running)


def retry(store: Store, refs: Sequence[str], now: float, *, tolerant: bool = False) -> list[JobRecord]:
    """Put ended jobs back to `pending` with no attempts used; `tolerant` is as in `cancel`.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    if tolerant:
        return _where_allowed(_those_there(store, refs), lambda record: _retry(store, record, now))
    return [_retry(store, record, now) for record in find_all(store, refs)]


def _retry(store: Store, job: JobRecord, now: float) -> JobRecord:
    after = lifecycle.move(job.id, job.state, Event.RETRY)
    store.update(job.number, state=after, attempts=0, run_at=now, cancelling=False, now=now)
    return _get(store, job.number)


def _get(store: Store, number: int) -> JobRecord:
    record = store.get(number)
    assert record is not None, "it was there in this transaction"  # noqa: S101
    return record


# --- the dead letter queue ------------------------------------------------------------------------------------------


def _dead(store: Store, refs: Sequence[str]) -> list[JobRecord]:
    records = find_all(store, refs)
    for record in records:
        if record.state is not JobState.DEAD:
            raise ProtocolError(
                "invalid_state",
                f"job {record.id} is not in the dead letter queue, it is {record.state}",
                "`queuectl dlq list` shows those that are",
            )
    return records


def dlq_retry(store: Store, refs: Sequence[str], now: float) -> list[int]:
    """Put dead jobs back to `pending`; the numbers of those that were.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    return [_retry(store, record, now).number for record in _dead(store, refs)]


def dlq_retry_some(store: Store, limit: int, after: int, now: float) -> list[int]:
    """As many of the dead jobs above `after`, oldest first."""
    numbers = store.in_state(JobState.DEAD, limit, after)
    for number in numbers:
        _retry(store, _get(store, number), now)
    return numbers


def dlq_purge(store: Store, refs: Sequence[str]) -> list[Deleted]:
    return store.delete([record.number for record in _dead(store, refs)])


def dlq_purge_some(store: Store, limit: int) -> list[Deleted]:
    return store.delete(store.in_state(JobState.DEAD, limit))


# --- retention ------------------------------------------------------------------------------------------------------


def remove_ended(store: Store, numbers: Sequence[int], state: JobState, ended_before: float | None) -> list[Deleted]:
    """Delete those of the jobs that are (still) in `state`, and ended before the given time if one is given."""
    records = [record for number in numbers if (record := store.get(number)) is not None]
    return store.delete(
        [
            record.number
            for record in records
            if record.state is state and (ended_before is None or record.updated_at < ended_before)
        ]
    )


# --- running --------------------------------------------------------------------------------------------------------


def lease(store: Store, worker: str, settings: Settings, now: float, unreadable: list[Settled]) -> Lease | None:
    """Give the next ready job to `worker`, fenced by a new token; None if there is none.

    A job that can't be read must not block all that wait behind it: it gets an attempt that has failed, and is dead.

    Args:
        store: the store.
        worker: its id.
        settings: what a lease says of them.
        now: UNIX seconds.
        unreadable: such jobs are added here.
    """
    while True:
        try:
            ready = store.next_ready(now)
        except UnreadableJob as fault:
            unreadable.append(_give_up(store, fault, worker, settings, now))
            continue
        if ready is None:
            return None
        attempt, token = ready.last_attempt + 1, secrets.token_hex(8)
        store.start_attempt(ready.number, attempt, token, worker, now)
        return as_lease(ready, attempt, token, settings)


def _give_up(store: Store, fault: UnreadableJob, worker: str, settings: Settings, now: float) -> Settled:
    attempt, token = fault.last_attempt + 1, secrets.token_hex(8)
    store.start_attempt(fault.number, attempt, token, worker, now)
    running = store.running_attempt(fault.number)
    assert running is not None, "it was started in this transaction"  # noqa: S101
    last = dataclasses.replace(running, job=dataclasses.replace(running.job, max_retries=0))  # it will not get better
    result = AttemptResult(fault.number, attempt, token, Outcome.FAILED, now, error=str(fault))
    return settle(store, last, result, settings, now, 0.0)


def as_lease(job: ReadyJob, attempt: int, token: str, settings: Settings) -> Lease:
    return Lease(
        job=job.number,
        attempt=attempt,
        token=token,
        id=job.id,
        queue=job.queue,
        max_retries=job.max_retries,
        timeout=job.timeout,
        log_max_bytes=settings.log_max_bytes,
        command=job.command,
        argv=job.argv,
        cwd=job.cwd,
        env=job.env,
        exact_env=job.exact_env,
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a job whose attempt has ended."""

    number: int
    id: str
    state: JobState
    run_at: float
    end: JobSummary | None
    """How the job ended, if it has."""


def finish(store: Store, worker: str, result: AttemptResult, settings: Settings, now: float, chance: float) -> Settled:
    """Record an attempt's outcome and what follows from it.

    Raises:
        ProtocolError: `conflict` where the attempt is not (any more) this worker's running one: the fence.
    """
    running = store.running_attempt(result.job)
    if running is None or (running.number, running.token, running.worker) != (result.attempt, result.token, worker):
        raise ProtocolError("conflict", f"attempt {result.attempt} of job {result.job} is not running under this lease")
    return settle(store, running, result, settings, now, chance)


def settle(
    store: Store, running: RunningAttempt, result: AttemptResult, settings: Settings, now: float, chance: float
) -> Settled:
    """As `finish`, for an attempt that is known to be the running one."""
    job = running.job
    error = None if result.error is None else cut(result.error)
    if result.unasked:  # said of an interruption that counts, and of no other
        error = "its worker got a signal to end"
    decision = lifecycle.settle(
        lifecycle.Running(job.id, job.attempts, job.max_retries, job.cancelling, job.run_at),
        result.outcome,
        settings,
        now,
        chance,
        asked_for=not result.unasked,
    )
    store.end_attempt(
        job.number,
        running.number,
        outcome=decision.outcome,
        exit_code=result.exit_code,
        signal=result.signal,
        error=error,
        state=decision.state,
        attempts=decision.attempts,
        run_at=decision.run_at,
        # By the daemon's clock: an attempt must not end before it began, whatever a clock did meanwhile.
        ended_at=max(running.started_at, min(result.ended_at, now)),
        now=now,
    )
    end = JobSummary(id=job.id, state=decision.state, exit_code=result.exit_code, error=error)
    return Settled(job.number, job.id, decision.state, decision.run_at, end if is_ended(decision.state) else None)


def attempts_of(store: Store, worker: str) -> list[tuple[int, int]]:
    """What a worker runs: job and number of each attempt."""
    return [(running.job.number, running.number) for running in store.running() if running.worker == worker]


def settle_worker(
    store: Store,
    worker: str,
    outcome: Outcome,
    records: Mapping[tuple[int, int], AttemptResult],
    settings: Settings,
    now: float,
    chance: float,
) -> list[Settled]:
    """Settle what a worker that is proven gone was running: by its exit record, else as `outcome`; forget the worker.

    Args:
        store: the store.
        worker: its id.
        outcome: LOST, or INTERRUPTED where this daemon ended it for a shutdown.
        records: exit records, by job and attempt; read before, because a transaction waits for no file.
        settings: for the backoff.
        now: UNIX seconds.
        chance: random, 0 to 1.
    """
    settled = []
    for running in store.running():
        if running.worker == worker:
            result = records.get((running.job.number, running.number))
            if result is None or result.token != running.token:
                error = "worker lost" if outcome is Outcome.LOST else None
                result = AttemptResult(running.job.number, running.number, running.token, outcome, now, error=error)
            settled.append(settle(store, running, result, settings, now, chance))
    store.remove_worker(worker)
    return settled


def is_ended(state: JobState) -> bool:
    return state in ENDED


def is_waiting(state: JobState) -> bool:
    return state in WAITING
