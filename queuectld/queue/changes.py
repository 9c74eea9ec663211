"""The change stream: what became of jobs, told once after the COMMIT that holds it.

Each operation that changes jobs returns the changes that it made beside its result, as `Changed`. So where it runs more
than once, the changes of the run that was committed are the ones that count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec import Struct

from queuectl_protocol.jobs import JobState
from queuectl_protocol.messages import JobSummary
from queuectld.core.lifecycle import Event
from queuectld.store.committer import Changed

T = TypeVar("T")

log = logging.getLogger("queuectld.changes")

ALL_WAITING = 0
"""No job has this number: a change of it is one of all jobs that wait."""


class After(Struct, frozen=True, gc=False):
    """A job after a change, as far as somebody needs it."""

    state: JobState
    run_at: float | None = None
    """UNIX seconds; of a job that waits."""
    end: JobSummary | None = None
    """How the job has ended, if it has."""


class Change(Struct, frozen=True, gc=False):
    """What an event has made of one job.

    Where the clock was set back, all jobs that wait are moved: that is one change, of ALL_WAITING.
    """

    job: int
    """Its number."""
    before: JobState | None
    """None: it was not there."""
    after: After | None
    """None: it is not there any more."""
    why: Event


def all_of(each: Iterable[Changed[T]]) -> Changed[list[T]]:
    """Several changed results as one, in their order."""
    made = [*each]
    return Changed([one.result for one in made], [change for one in made for change in one.changes])


class ChangeStream:
    """Tells subscribers of changes, in the order of the commits, in the event loop's thread."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Sequence[Change]], None]] = []

    def subscribe(self, tell: Callable[[Sequence[Change]], None]) -> None:
        """Have `tell` called after each COMMIT from now on, with the changes that it holds, if any.

        `tell` must be quick, and costs next to nothing for a change that does not concern it: the hot path calls it.
        """
        self._subscribers.append(tell)

    def publish(self, changes: Sequence[Change]) -> None:
        """For the committer."""
        for tell in self._subscribers:
            try:
                tell(changes)
            except Exception:
                # The others are to be told all the same, and those who asked for the changes to be answered.
                log.exception("a fault in who is told of changes")
