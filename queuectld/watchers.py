"""Who waits for something to happen to a job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable


class Watchers:
    """Wakes those who wait for a change of a job. A change is told after its COMMIT, so who is woken finds it.

    The pattern: subscribe, look, and only then wait, so that no change falls between the look and the wait.
    """

    def __init__(self) -> None:
        self._events: defaultdict[int, set[asyncio.Event]] = defaultdict(set)

    def subscribe(self, numbers: Iterable[int]) -> asyncio.Event:
        """An event that is set at each change of one of the jobs, until `unsubscribe`."""
        event = asyncio.Event()
        for number in numbers:
            self._events[number].add(event)
        return event

    def unsubscribe(self, numbers: Iterable[int], event: asyncio.Event) -> None:
        for number in numbers:
            waiting = self._events.get(number)
            if waiting is not None:
                waiting.discard(event)
                if not waiting:
                    del self._events[number]

    def changed(self, number: int) -> None:
        for event in self._events.get(number, ()):
            event.set()

    def all_changed(self) -> None:
        """Wake everyone: the daemon is stopping."""
        for events in self._events.values():
            for event in events:
                event.set()
