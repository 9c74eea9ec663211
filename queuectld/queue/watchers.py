"""Who wants to know what becomes of a job."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from queuectl_protocol.messages import JobSummary
from queuectld.queue.changes import Change


class Watch(ABC):
    """Is told of each change of the jobs that it was subscribed to, once each, in the order of the commits."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def changed(self, change: Change) -> None:
        """A job has changed."""

    @abstractmethod
    def wake(self) -> None:
        """Look again, whatever it is that is waited for: the daemon is stopping."""


class Watchers:
    """Tells watches of changes, of the change stream. A change is told after its COMMIT, so who looks then finds it.

    The pattern: subscribe, look, and only then wait, so that no change falls between the look and the wait.
    """

    def __init__(self) -> None:
        # Nearly every job that is waited for has one watch, and many thousands of jobs may be: a set for each would be
        # most of what they take.
        self._watches: dict[int, Watch | tuple[Watch, ...]] = {}

    def subscribe(self, numbers: Iterable[int], watch: Watch) -> None:
        for number in numbers:
            watches = self._of(number)
            if not watches:
                self._watches[number] = watch
            elif watch not in watches:
                self._watches[number] = (*watches, watch)

    def unsubscribe(self, numbers: Iterable[int], watch: Watch) -> None:
        for number in numbers:
            left = tuple(one for one in self._of(number) if one is not watch)
            if left:
                self._watches[number] = left
            else:
                self._watches.pop(number, None)

    def _of(self, number: int) -> tuple[Watch, ...]:
        watches = self._watches.get(number, ())
        return watches if isinstance(watches, tuple) else (watches,)

    def changed(self, changes: Sequence[Change]) -> None:
        """For the change stream."""
        if self._watches:
            for change in changes:
                if change.job in self._watches:
                    for watch in self._of(change.job):
                        watch.changed(change)

    def wake_all(self) -> None:
        """The daemon is stopping."""
        for number in self._watches:
            for watch in self._of(number):
                watch.wake()


class AnyChange(Watch):
    """Waits for any change at all.

    Attributes:
        event: set at each; whoever waits clears it before looking.
    """

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def changed(self, _change: Change) -> None:
        self.event.set()

    def wake(self) -> None:
        self.event.set()


class Ends(Watch):
    """Waits until jobs have ended: a change costs the same however many they are.

    How one ended is remembered. It may be removed while the others run.

    Attributes:
        event: set when all have ended, or something else is to be looked at.
    """

    __slots__ = ("_jobs", "_left", "event")

    def __init__(self, numbers: Iterable[int]) -> None:
        self._jobs: dict[int, JobSummary | None] = dict.fromkeys(numbers)
        self._left = len(self._jobs)
        self.event = asyncio.Event()

    def changed(self, change: Change) -> None:
        if change.after is None:
            self.event.set()  # it was removed; how it had ended stays
        else:
            self.note(change.job, change.after.end)

    def note(self, number: int, ended: JobSummary | None) -> None:
        """How a job ended, or None: it has not."""
        # A job that had ended and is run again has not ended any more.
        self._left += (ended is None) - (self._jobs[number] is None)
        self._jobs[number] = ended
        if self.all_ended:
            self.event.set()

    def wake(self) -> None:
        self.event.set()

    @property
    def jobs(self) -> Mapping[int, JobSummary | None]:
        """How each ended, by number, in the order in which they were given; None: it has not."""
        return self._jobs

    @property
    def all_ended(self) -> bool:
        return self._left == 0
