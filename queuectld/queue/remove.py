"""Deleting jobs that have ended."""

from __future__ import annotations

from collections.abc import Sequence

from queuectl_protocol.jobs import JobState
from queuectld.core.lifecycle import Event
from queuectld.queue import change
from queuectld.queue.changes import Change
from queuectld.store.base import Deleted, Store
from queuectld.store.committer import Changed


def purge(store: Store, refs: Sequence[str]) -> Changed[list[Deleted]]:
    """Delete dead jobs.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is deleted.
    """
    return _delete(store, [record.number for record in change.dead(store, refs)], before=JobState.DEAD)


def purge_some(store: Store, limit: int) -> Changed[list[Deleted]]:
    """As many of the dead jobs, oldest first."""
    return _delete(store, store.in_state(JobState.DEAD, limit), before=JobState.DEAD)


def remove_ended(
    store: Store, numbers: Sequence[int], state: JobState, ended_before: float | None
) -> Changed[list[Deleted]]:
    """Delete those of the jobs that are (still) in `state`, and ended before the given time if one is given."""
    records = [record for number in numbers if (record := store.get(number)) is not None]
    old = [
        record.number
        for record in records
        if record.state is state and (ended_before is None or record.updated_at < ended_before)
    ]
    return _delete(store, old, before=state)


def _delete(store: Store, numbers: Sequence[int], *, before: JobState) -> Changed[list[Deleted]]:
    deleted = store.delete(numbers)
    return Changed(deleted, [Change(job.number, before, None, Event.REMOVE) for job in deleted])
