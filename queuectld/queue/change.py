"""What people change of jobs: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import WAITING, JobState
from queuectld import failpoints
from queuectld.core import lifecycle
from queuectld.core.lifecycle import Event
from queuectld.queue.changes import After, Change, all_of
from queuectld.queue.find import find_all, summary_of_end, those_there
from queuectld.store.base import JobRecord, RunningAttempt, Store
from queuectld.store.committer import Changed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job after a cancel: ended at once, or its running attempt is to be ended."""

    job: JobRecord
    running: RunningAttempt | None


def cancel(store: Store, refs: Sequence[str], now: float, *, tolerant: bool = False) -> Changed[list[Cancelled]]:
    """Cancel waiting jobs; mark running ones, so that whatever happens from now on, they are not run again.

    Args:
        store: the store.
        refs: ids or prefixes; only ids where it is tolerant.
        now: UNIX seconds.
        tolerant: pass over what is not there, and jobs that have ended.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is cancelled.
    """
    cancelled = _each(store, refs, lambda record: _cancel(store, record, now), tolerant=tolerant)
    failpoints.hit("cancel.marked")
    return cancelled


def _cancel(store: Store, job: JobRecord, now: float) -> Changed[Cancelled]:
    if job.state is JobState.CANCELLED or job.cancelling:
        return Changed(Cancelled(job, store.running_attempt(job.number)), ())  # asked for twice is no error
    running = store.running_attempt(job.number) if job.state is JobState.PROCESSING else None
    # A job that runs without an attempt has nothing whose end would cancel it.
    event = Event.ABORT if job.state is JobState.PROCESSING and running is None else Event.CANCEL
    store.update(
        job.number,
        state=lifecycle.move(job.id, job.state, event),
        attempts=job.attempts,
        run_at=job.run_at,
        cancelling=running is not None,
        now=now,
    )
    after = _get(store, job.number)
    return Changed(Cancelled(after, running), (_change(job, after, event),))


def retry(store: Store, refs: Sequence[str], now: float, *, tolerant: bool = False) -> Changed[list[JobRecord]]:
    """Put ended jobs back to wait with no attempts used; `tolerant` is as in `cancel`.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    return _each(store, refs, lambda record: _retry(store, record, now), tolerant=tolerant)


def _each(
    store: Store, refs: Sequence[str], change: Callable[[JobRecord], Changed[T]], *, tolerant: bool
) -> Changed[list[T]]:
    if tolerant:
        return all_of(_where_allowed(those_there(store, refs), change))
    return all_of(change(record) for record in find_all(store, refs))


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


def _retry(store: Store, job: JobRecord, now: float) -> Changed[JobRecord]:
    state = lifecycle.move(job.id, job.state, Event.RETRY)
    store.update(job.number, state=state, attempts=0, run_at=now, cancelling=False, now=now)
    after = _get(store, job.number)
    return Changed(after, (_change(job, after, Event.RETRY),))


def _change(before: JobRecord, after: JobRecord, why: Event) -> Change:
    run_at = after.run_at if after.state in WAITING else None
    return Change(before.number, before.state, After(after.state, run_at, summary_of_end(after)), why)


def _get(store: Store, number: int) -> JobRecord:
    record = store.get(number)
    assert record is not None, "it was there in this transaction"  # noqa: S101
    return record


# --- the dead letter queue ------------------------------------------------------------------------------------------


def dead(store: Store, refs: Sequence[str]) -> list[JobRecord]:
    """The jobs, all of which are in the dead letter queue.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`.
    """
    records = find_all(store, refs)
    for record in records:
        if record.state is not JobState.DEAD:
            raise ProtocolError(
                "invalid_state",
                f"job {record.id} is not in the dead letter queue, it is {record.state}",
                "`queuectl dlq list` shows those that are",
            )
    return records


def retry_dead(store: Store, refs: Sequence[str], now: float) -> Changed[list[JobRecord]]:
    """Put dead jobs back to wait.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    return all_of(_retry(store, record, now) for record in dead(store, refs))


def retry_some_dead(store: Store, limit: int, after: int, now: float) -> Changed[list[JobRecord]]:
    """As many of the dead jobs above `after`, oldest first."""
    return all_of(_retry(store, _get(store, number), now) for number in store.in_state(JobState.DEAD, limit, after))
