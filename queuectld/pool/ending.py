"""Ending what a lost worker has left, with the proof that nothing of it lives, and settling what it ran."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from msgspec import structs

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import Outcome
from queuectl_protocol.messages import AttemptResult
from queuectld import failpoints
from queuectld.attempt_files import exit_records
from queuectld.core.settings import Settings
from queuectld.host.clock import Clock
from queuectld.host.threads import Threads
from queuectld.pool.places import Places
from queuectld.process_tree import cgroups, lost
from queuectld.queue.settle import attempts_of, settle_worker
from queuectld.store.base import WorkerRecord
from queuectld.store.committer import Committer

log = logging.getLogger("queuectld.workers")

PROOF_PAUSE = 1.0
"""Seconds between two tries to prove that a worker is gone, where the system does not let us look."""

THREADS = 16
"""Process trees that are ended side by side; each looks through all of /proc."""


class Ending:
    """Ends process trees, and settles what ran in them.

    Args:
        committer: where changes are made.
        settings: the ones in force, asked for each time.
        clock: UNIX seconds.
        places: where the files of workers are.
        orphans_of: children of this process that a worker may have left; called in threads of their own.
    """

    def __init__(
        self,
        committer: Committer,
        settings: Callable[[], Settings],
        clock: Clock,
        places: Places,
        orphans_of: Callable[[str], list[int]],
    ) -> None:
        self._committer = committer
        self._settings = settings
        self._clock = clock
        self._places = places
        self._orphans_of = orphans_of
        self._threads = Threads(THREADS, "ending")
        self._give_up = threading.Event()

    @property
    def is_given_up(self) -> bool:
        """This process is about to end or to re-execute itself; a successor goes on with what is left."""
        return self._give_up.is_set()

    def give_up(self) -> None:
        """Blocks until the threads have ended."""
        self._give_up.set()
        self._threads.close()

    async def prove_gone(self, record: WorkerRecord, token: str) -> bool:
        """End what a worker and its job have left; True with the proof, False where this was given up before.

        Args:
            record: of the worker.
            token: of the attempt that it had; "" where it had none.
        """
        places = self._places
        lock, mark = places.lock_of(record.id), places.mark_of(token)
        group = cgroups.Group(places.groups, mark) if mark and places.groups else None

        def end() -> bool:
            while not self._give_up.is_set():
                try:
                    return lost.end_lost_tree(
                        worker=(record.pid, record.start_ticks),
                        lock=lock,
                        mark=mark,
                        group=group,
                        orphans=lambda: self._orphans_of(record.id),
                        give_up=self._give_up.is_set,
                    )
                except OSError as error:  # no descriptor left to look into /proc: no proof, so no end yet
                    log.error("can't prove yet that worker %s is gone: %s", record.id, error)  # noqa: TRY400
                    self._give_up.wait(PROOF_PAUSE)
            return False

        failpoints.hit("lost.noticed")
        if self._give_up.is_set():
            return False  # the threads have ended; a successor goes on with this
        proven = await self._threads.run(end)
        if proven:
            failpoints.hit("lost.proven")
        return proven

    async def settle(self, worker: str, lost_as: Outcome, *, stopping: bool) -> bool:
        """Settle what a worker that is proven gone was running, and forget the worker; whether it could be stored.

        Args:
            worker: its id.
            lost_as: the outcome of an attempt that left no exit record.
            stopping: whether the daemon stops: then every interruption was asked for.
        """
        settings, chance = self._settings(), random.random()  # noqa: S311
        records: dict[tuple[int, int], AttemptResult] = {}
        state_dir = self._places.state_dir
        try:
            # Nothing is leased to a worker that is gone: what it runs now is what it runs in the transaction below.
            attempts = await self._committer.submit(lambda store: attempts_of(store, worker))
            for job, attempt in attempts:
                record = exit_records.read(state_dir, job, attempt)
                if record is not None:
                    records[job, attempt] = structs.replace(record, unasked=record.unasked and not stopping)
            # Not before: a clock that is set back meanwhile takes along only what was submitted until then.
            now = self._clock.now()
            settled = await self._committer.submit(
                lambda store: settle_worker(store, worker, lost_as, records, settings, now, chance)
            )
        except ProtocolError as refusal:
            log.error("the end of a worker could not be stored: %s", refusal.message)  # noqa: TRY400 - it says all
            return False
        except OSError as error:
            log.error("an exit record can't be looked for now, trying again: %s", error)  # noqa: TRY400 - it says all
            return False
        failpoints.hit("lost.committed")
        for job, attempt in attempts:  # only now, when what they said is on disk
            exit_records.remove(state_dir, job, attempt)
        for job_end in settled:
            log.warning("attempt settled without its worker", extra={"job": job_end.id, "state": job_end.state})
        return True
