"""When the wall clock was set back: the daemon's clock and all jobs that wait go back together (see clock.py)."""

from __future__ import annotations

import logging

from queuectl_protocol.errors import ProtocolError
from queuectld.core.lifecycle import Event
from queuectld.host.clock import Clock
from queuectld.host.looks import next_look
from queuectld.queue.changes import ALL_WAITING, Change
from queuectld.store.base import StorageBusy, Store
from queuectld.store.committer import Changed, Committer

log = logging.getLogger("queuectld")

SLACK = 1.0
"""Seconds that the wall clock may be behind before it counts as set back."""


def at_start(store: Store, clock: Clock) -> None:
    """Move what waits, if the wall clock is behind the last change: that was set back while no daemon ran."""
    ahead = store.last_seen_time() - clock.now()
    if ahead <= SLACK:
        return
    while True:
        try:
            store.begin()
            break
        except StorageBusy as error:  # without this nothing may start: a delay would grow by the jump
            log.warning("waiting: %s", error)
    store.shift_waiting(-ahead, clock.now())
    store.commit()
    _say(ahead)


async def follow(clock: Clock, committer: Committer) -> None:
    """Look at the wall clock for ever; cancelled at the end.

    Args:
        clock: comes back to the wall clock.
        committer: where jobs are moved.
    """
    while True:
        await next_look()
        await come_back(clock, committer)


async def come_back(clock: Clock, committer: Committer) -> bool:
    """Whether the clock was ahead of the wall clock, and has come back to it with all that waits."""
    ahead = clock.ahead()
    if ahead <= SLACK:
        return False
    # At the moment of the submission: all operations that are submitted later have times of the clock that was set
    # back, and run after the jobs were moved; all that were submitted before have the times that are moved.
    clock.set_back(ahead)
    now = clock.now()
    try:
        await committer.submit(lambda store: _move(store, -ahead, now))
    except ProtocolError as refusal:  # a full disk: the jobs stay where they were, and so must the clock
        clock.set_back(-ahead)
        log.warning("the clock was set back; waiting jobs can't be moved along yet: %s", refusal.message)
        return False
    _say(ahead)
    return True


def _move(store: Store, seconds: float, now: float) -> Changed[None]:
    store.shift_waiting(seconds, now)
    return Changed(None, (Change(ALL_WAITING, None, None, Event.SHIFT),))


def _say(seconds: float) -> None:
    log.warning("the clock was set back; waiting jobs are moved along", extra={"seconds": round(seconds, 3)})
