"""What an earlier daemon left: files that belong to nothing any more, and workers that still live."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from queuectld.attempt_files import exit_records, regular_files
from queuectld.pool.places import Places
from queuectld.process_tree import marks, proc
from queuectld.store.base import RunningAttempt, WorkerRecord


def sweep(places: Places, workers: list[WorkerRecord], running: list[RunningAttempt]) -> None:
    """Remove exit records and locks that belong to no running attempt and no known worker.

    A daemon or a worker that was killed could not remove its own.
    """
    exit_records.keep_only(places.state_dir, {(attempt.job.number, attempt.number) for attempt in running})
    sweep_locks(places, {worker.id for worker in workers})


def sweep_locks(places: Places, known: Collection[str]) -> None:
    """A daemon killed between the start of a worker and its record leaves one that no successor knows."""
    for lock in (places.state_dir / "workers").glob("*.lock"):
        with contextlib.suppress(OSError):  # what can't be looked at is no reason not to start
            if lock.stem not in known and marks.lock_is_free(lock):
                regular_files.remove(lock)


def living(places: Places, record: WorkerRecord, boot_id: str) -> int | None:
    """A pidfd of a recorded worker that lives, the caller's to close; None where it does not."""
    if record.boot_id != boot_id or record.pid <= 0:
        return None
    pidfd = proc.open_process(record.pid)
    if pidfd is None:
        return None
    # Looked at after the pidfd was taken, so that it is this very process that the pidfd stands for.
    if proc.is_alive(record.pid, record.start_ticks) and _is_ours(places, record):
        return pidfd
    os.close(pidfd)
    return None


def _is_ours(places: Places, record: WorkerRecord) -> bool:
    """Whether a living process is this queue's worker, not that of a queue whose database this one is a copy of.

    A job can let go of the worker's lock (`flock -u`) or remove it; what the worker was started with stays. The
    directory may have another name since; the lock in it is the same.
    """
    if proc.is_worker(record.pid, record.id, places.state_dir):
        return True
    try:
        return not marks.lock_is_free(places.lock_of(record.id))
    except OSError:
        return False
