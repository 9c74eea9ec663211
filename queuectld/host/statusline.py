"""The line about the daemon that `systemctl status` shows: kept as it is now, without asking when nothing changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import WAITING, JobState
from queuectld.host import sdnotify

Counts = dict[JobState, int]

INTERVAL = 1.0
"""Seconds between two lines, at least."""


class StatusLine:
    """Tells systemd a new line after commits that changed it.

    Each change of a job or a worker is a commit, so nothing else is to be watched.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._told = ""

    def changed(self, _changes: object = None) -> None:
        """For the change stream, and whoever else has changed what the line says.

        Told of each commit, also where it changes no job: it may have changed the workers.
        """
        self._changed.set()

    def trouble(self, what: str) -> None:
        """Tell `what` is the matter, until a commit succeeds."""
        self._told = what
        sdnotify.notify(f"STATUS={what}")

    def ready(self, counts: Counts, workers: int) -> None:
        """Tell systemd that the daemon is ready, and its first line."""
        self._told = text(counts, workers, stopping=False)
        sdnotify.notify("READY=1", f"STATUS={self._told}")

    async def run(
        self, counts: Callable[[], Awaitable[Counts]], workers: Callable[[], int], stopping: Callable[[], bool]
    ) -> None:
        """Tell new lines until this is cancelled; what they say is asked for each time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            with contextlib.suppress(ProtocolError):  # it can't be read: what else goes wrong then is told by others
                line = text(await counts(), workers(), stopping=stopping())
                if line != self._told and sdnotify.notify(f"STATUS={line}"):
                    self._told = line
            await asyncio.sleep(INTERVAL)


def text(counts: Counts, workers: int, *, stopping: bool) -> str:
    """`2 workers, 1 job running, 0 waiting, 0 dead`."""
    running = _count(counts[JobState.PROCESSING], "job")
    if stopping:
        return f"stopping: {_count(workers, 'worker')}, {running} running"
    waiting = sum(counts[state] for state in WAITING)
    return f"{_count(workers, 'worker')}, {running} running, {waiting} waiting, {counts[JobState.DEAD]} dead"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
