"""Deleting jobs that have ended."""

from __future__ import annotations

from collections.abc import Sequence

from queuectl_protocol.jobs import JobState
from queuectld.queue import change
from queuectld.store.base import Deleted, Store


def purge(store: Store, refs: Sequence[str]) -> list[Deleted]:
    """Delete dead jobs.

    Raises:
        ProtocolError: `not_found`, `conflict`, `invalid_state`; then none is deleted.
    """
    return store.delete([record.number for record in change.dead(store, refs)])


def purge_some(store: Store, limit: int) -> list[Deleted]:
    """As many of the dead jobs, oldest first."""
    return store.delete(store.in_state(JobState.DEAD, limit))


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
