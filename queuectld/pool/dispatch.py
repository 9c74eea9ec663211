"""Giving ready jobs to the workers that wait for one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from queuectl_protocol.messages import Lease
from queuectld import failpoints
from queuectld.core.lifecycle import Event
from queuectld.core.settings import Settings
from queuectld.host.clock import Clock
from queuectld.host.diskspace import DiskSpace
from queuectld.pool.handles import Handle
from queuectld.pool.timers import Timers
from queuectld.queue.changes import Change
from queuectld.queue.lease import Given, lease
from queuectld.queue.settle import Settled
from queuectld.store.committer import Committer

T = TypeVar("T")

log = logging.getLogger("queuectld.workers")

DISK_PAUSE = 2.0
"""Seconds between two looks whether a full disk has room again; only where a worker waits for work."""

LONGEST_WAIT = 60.0
"""Seconds between two looks at the clock while a job waits for its time: so late it starts after a suspend, at most."""

_NEVER = float("inf")
"""A time in UNIX seconds that does not come."""


class Told(Protocol):
    """Who is told what becomes of the workers that wait."""

    def offered(self, handle: Handle) -> None:
        """From now on an attempt may be committed to the worker."""

    def leased(self, handle: Handle, lease: Lease, now: float) -> None:
        """An attempt was committed to a worker to which one was offered, at `now` (UNIX seconds)."""

    def not_leased(self, handle: Handle) -> None:
        """No attempt was committed to a worker to which one was offered."""

    def gave_up(self, unreadable: list[Settled]) -> None:
        """These jobs can't be read."""


class Dispatch:
    """Which workers wait for a job, and when jobs may be ready.

    Args:
        committer: where leases are made.
        settings: the ones in force, asked for each time.
        clock: UNIX seconds.
        disk: nothing is started on a full disk; it waits.
        timers: of the pool.
        told: of each offer, and what becomes of it.
    """

    def __init__(
        self,
        committer: Committer,
        settings: Callable[[], Settings],
        clock: Clock,
        disk: DiskSpace,
        timers: Timers,
        told: Told,
    ) -> None:
        self._committer = committer
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._timers = timers
        self._told = told
        self._waiting: dict[str, Handle] = {}
        self._wakes = 0
        self._is_offering = False
        self._is_stopped = False

    @property
    def wakes(self) -> int:
        """How often jobs became ready."""
        return self._wakes

    def add(self, handle: Handle) -> None:
        """A worker waits for a job."""
        self._waiting[handle.record.id] = handle

    def remove(self, handle: Handle) -> None:
        """A worker does not wait for a job, or not any more."""
        self._waiting.pop(handle.record.id, None)

    def stop(self) -> None:
        """Nothing is offered from now on."""
        self._is_stopped = True

    def changed(self, changes: Sequence[Change]) -> None:
        """For the change stream: jobs that wait may be ready by now, or will be."""
        earliest = _NEVER
        for change in changes:
            after = change.after
            if after is None:
                if change.why is Event.SHIFT:
                    earliest = 0.0
            elif after.run_at is not None and after.run_at < earliest:
                earliest = after.run_at
        if earliest == _NEVER:
            return
        if earliest <= self._clock.now():
            self.wake()
        else:
            self.wake_at(earliest)

    def wake(self) -> None:
        """Jobs may be ready."""
        self._wakes += 1
        self.offer()

    def wake_at(self, run_at: float) -> None:
        # The loop's timers stand still while the machine is suspended, and know nothing of a clock that is set forward.
        wait = min(max(0.0, run_at - self._clock.now()), LONGEST_WAIT)
        self._timers.set("due", time.monotonic() + wait, self.wake, keep_earlier=True)

    def offer(self) -> None:
        """Offer what is ready to those that wait; one round at a time, and another if something became ready in it."""
        if self._is_offering or self._is_stopped or not self._waiting:
            return
        if self._disk.is_low():
            self._timers.set("disk", time.monotonic() + DISK_PAUSE, self.wake, keep_earlier=True)
            return
        offered = list(self._waiting.values())
        self._waiting.clear()
        for handle in offered:
            self._told.offered(handle)
        seen, settings, now = self._wakes, self._settings(), self._clock.now()
        workers = [handle.record.id for handle in offered]
        self._is_offering = True
        future = self._committer.submit(lambda store: lease(store, workers, settings, now))

        def done(future: asyncio.Future[Given]) -> None:
            self._is_offering = False
            if is_refused(future):
                # The disk is full or failing: look again, but not at once.
                given = Given([], [], due=self._clock.now() + 1.0)
            else:
                given = future.result()
                self._told.gave_up(given.unreadable)
                if given.leases:
                    failpoints.hit("lease.committed")
            for handle, leased in zip(offered, given.leases, strict=False):
                self._told.leased(handle, leased, now)
            for handle in offered[len(given.leases) :]:
                self._told.not_leased(handle)
            if given.due is not None:
                self.wake_at(given.due)
            if self._wakes != seen:
                self.offer()

        future.add_done_callback(done)


def is_refused(future: asyncio.Future[T]) -> bool:
    """Whether a change was not stored. The reason is logged."""
    if future.cancelled():
        return True
    error = future.exception()
    if error is not None:
        log.error("a change could not be stored: %s", error)
    return error is not None
