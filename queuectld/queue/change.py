"""What people change of jobs: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobState
from queuectld import failpoints
from queuectld.core import lifecycle
from queuectld.core.lifecycle import Event
from queuectld.queue.find import find_all, those_there
from queuectld.store.base import JobRecord, RunningAttempt, Store

T = TypeVar("T")


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
    cancelled = _each(store, refs, lambda record: _cancel(store, record, now), tolerant=tolerant)
    failpoints.hit("cancel.marked")
    return cancelled


def _cancel(store: Store, job: JobRecord, now: float) -> Cancelled:
    if job.state is JobState.CANCELLED or job.cancelling:
        return Cancelled(job, store.running_attempt(job.number))  # asked for twice is no error
    running = store.running_attempt(job.number) if job.state is JobState.PROCESSING else None
    lost = job.state is JobState.PROCESSING and running is None  # nothing that ends would take the job out of its state
    store.update(
        job.number,
        state=lifecycle.move(job.id, job.state, Event.ABORT if lost else Event.CANCEL),
        attempts=job.attempts,
        run_at=job.run_at,
        cancelling=running is not None,
        now=now,
    )
    return Cancelled(_get(store, job.number), running)


def retry(store: Store, refs: Sequence[str], now: float, *, tolerant: bool = False) -> list[JobRecord]:
    """Put ended jobs back to wait with no attempts used; `tolerant` is as in `cancel`.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    return _each(store, refs, lambda record: _retry(store, record, now), tolerant=tolerant)


def _each(store: Store, refs: Sequence[str], change: Callable[[JobRecord], T], *, tolerant: bool) -> list[T]:
    if tolerant:
        return _where_allowed(those_there(store, refs), change)
    return [change(record) for record in find_all(store, refs)]


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


def _retry(store: Store, job: JobRecord, now: float) -> JobRecord:
    after = lifecycle.move(job.id, job.state, Event.RETRY)
    store.update(job.number, state=after, attempts=0, run_at=now, cancelling=False, now=now)
    return _get(store, job.number)


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


def retry_dead(store: Store, refs: Sequence[str], now: float) -> list[int]:
    """Put dead jobs back to wait; the numbers of those that were.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is changed.
    """
    return [_retry(store, record, now).number for record in dead(store, refs)]


def retry_some_dead(store: Store, limit: int, after: int, now: float) -> list[int]:
    """As many of the dead jobs above `after`, oldest first."""
    numbers = store.in_state(JobState.DEAD, limit, after)
    for number in numbers:
        _retry(store, _get(store, number), now)
    return numbers
