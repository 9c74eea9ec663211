"""Who wants to know what becomes of a job."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence

from queuectl_protocol.messages import JobSummary


class Watch(ABC):
    """Is told of each change of the jobs that it was subscribed to, once each, in the order of the commits."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def changed(self, number: int, ended: JobSummary | None) -> None:
        """A job has changed; `ended` is how it ended, if it has."""

    @abstractmethod
    def wake(self) -> None:
        """Look again, whatever it is that is waited for: the daemon is stopping, or a job was removed."""


class Watchers:
    """Tells watches of changes. A change is told after its COMMIT, so who looks then finds it.

    The pattern: subscribe, look, and only then wait, so that no change falls between the look and the wait.
    """

    def __init__(self) -> None:
        self._watches: defaultdict[int, set[Watch]] = defaultdict(set)

    def subscribe(self, numbers: Iterable[int], watch: Watch) -> None:
        for number in numbers:
            self._watches[number].add(watch)

    def unsubscribe(self, numbers: Iterable[int], watch: Watch) -> None:
        for number in numbers:
            watches = self._watches.get(number)
            if watches is not None:
                watches.discard(watch)
                if not watches:
                    del self._watches[number]

    def changed(self, number: int, ended: JobSummary | None) -> None:
        """A job has changed; `ended` is how it ended, if it has."""
        for watch in self._watches.get(number, ()):
            watch.changed(number, ended)

    def removed(self, number: int) -> None:
        for watch in self._watches.get(number, ()):
            watch.wake()

    def wake_all(self) -> None:
        """The daemon is stopping."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()


class AnyChange(Watch):
    """Waits for any change at all.

    Attributes:
        event: set at each; whoever waits clears it before looking.
    """

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def changed(self, _number: int, _ended: JobSummary | None) -> None:
        self.event.set()

    def wake(self) -> None:
        self.event.set()


class Ends(Watch):
    """Waits until jobs have ended: a change costs the same however many they are.

    How one ended is remembered. It may be removed while the others run.

    Attributes:
        event: set when all have ended, or something else is to be looked at.
    """

    __slots__ = ("_ended", "_numbers", "event")

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._ended: dict[int, JobSummary] = {}
        self.event = asyncio.Event()

    def changed(self, number: int, ended: JobSummary | None) -> None:
        if ended is None:
            self._ended.pop(number, None)  # it is run again
            return
        self._ended[number] = ended
        if self.all_ended:
            self.event.set()

    def wake(self) -> None:
        self.event.set()

    @property
    def all_ended(self) -> bool:
        return len(self._ended) == len(self._numbers)

    def ended(self, number: int) -> JobSummary | None:
        """How one ended, if it has."""
        return self._ended.get(number)
