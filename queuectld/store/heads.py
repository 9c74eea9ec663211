"""The first waiting jobs of each lane, as far as they are known, and the lanes in the order in which they are taken.

A store keeps one `Heads` beside its writer, tells it what changes, and gives the first jobs of a lane when a choice has
come to that lane. What is known of a lane is its very first jobs, or a time that none of its jobs is due before. That
time may be too early: it costs one look at the lane. So after a rollback it is enough to forget the lanes that the
transaction has changed or looked at.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from queuectld.core.choice import Head, Traits, rank

KNOWN = 8
"""First jobs of a lane that are asked for at a look: so most leases need none."""

SPARE = 64
"""Empty lanes that are kept, because they will often be used again; and outdated entries of a heap."""

_ANY_TIME = float("-inf")
_Entry = tuple[Any, int]
"""A rank, or a time, and the number of a lane."""


@dataclass(slots=True, eq=False)
class _Lane:
    traits: Traits
    not_before: float
    """No waiting job is due before; of use while `first` is empty."""
    first: list[tuple[float, int]]
    """`run_at` and number of the very first waiting jobs; empty: not known, or there are none."""
    is_whole: bool
    """Whether `first` is all that wait."""
    entry: _Entry | None = None
    """Where it waits, in one of the two heaps; any other entry of this lane is outdated. None: no job waits."""
    is_closed: bool = False
    """Which heap that is."""


class Heads:
    """See core.choice.Lanes, which it is. One thread uses it: the store's writer."""

    def __init__(self, look: Callable[[int, int], list[tuple[float, int]]]) -> None:
        """
        Args:
            look: `run_at` and number of the first waiting jobs of a lane, as many as there are but at most the second
                argument, as the open transaction has them. What is stored and is no time is -infinity, and may come
                last.
        """
        self._look = look
        self._lanes: dict[int, _Lane] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._open: list[_Entry] = []
        """A heap by rank."""
        self._closed: list[_Entry] = []
        """A heap by the time until which the lane is closed."""
        self._passed: list[_Entry] = []
        """Taken out of the open ones for the time of one walk through them."""
        self._given: Head | None = None
        """The last one."""
        self._perhaps_empty: dict[int, None] = {}
        """Lanes to be removed if really no job waits in them, in the order in which they became so."""
        self._changed: set[int] = set()
        """Lanes that a job has left, or that were looked at, since the transaction began."""
        self._history: list[tuple[int, _Lane, bool]] = []
        """Lanes that were added (true) and removed (false) since the transaction began."""
        self._marked = 0

    # what a store tells

    def number_of(self, queue: str, priority: int) -> int | None:
        """Of the lane with these traits; None where there is no such lane."""
        return self._numbers.get((queue, priority))

    def add(self, number: int, traits: Traits, not_before: float | None = None) -> None:
        """There is a lane, none of whose jobs is due before a time (UNIX seconds); None: no job waits in it."""
        lane = _Lane(traits, not_before or 0.0, [], not_before is None)
        self._put(number, lane)
        self._history.append((number, lane, True))
        if not_before is not None:
            self._place(number, lane)
        else:
            self._perhaps_empty[number] = None

    def remove(self, number: int) -> None:
        """There is no such lane any more; no job waited in it."""
        self._history.append((number, self._lanes[number], False))
        self._drop(number)

    def may_be_empty(self, number: int) -> None:
        """It is not sure that a job waits in the lane."""
        self._perhaps_empty[number] = None

    def removable(self) -> list[int]:
        """Lanes that may be removed if really no job waits in them. To be asked for before a lane is added.

        Two for each lane that is added, so there are ever fewer of them; and a few are kept.
        """
        surplus = len(self._perhaps_empty) - SPARE
        found = list(itertools.islice(self._perhaps_empty, max(0, min(2, surplus))))
        for number in found:
            del self._perhaps_empty[number]
        return found

    def waits(self, number: int, run_at: float) -> None:
        """A job waits in the lane from now on, or from the next write on. UNIX seconds."""
        lane = self._lanes[number]
        self._perhaps_empty.pop(number, None)
        first = lane.first
        if first:
            lane.is_whole = False
            while first and run_at <= first[-1][0]:  # at the same time the lower number comes first: it is not known
                first.pop()
            if first:
                return
            lane.not_before = run_at
        elif lane.is_whole:
            lane.is_whole, lane.not_before = False, run_at
        elif run_at < lane.not_before:
            lane.not_before = run_at
        else:
            return
        if lane.entry is None or lane.is_closed or rank(lane.traits, run_at, 0) < lane.entry[0]:
            self._place(number, lane)

    def left(self, number: int, job: int) -> None:
        """A job that waited in the lane does not any more."""
        lane = self._lanes[number]
        self._changed.add(number)
        first = lane.first
        is_head = not first
        for place, (run_at, known) in enumerate(first):
            if known == job:
                del first[place]
                if place == 0:
                    lane.not_before, is_head = run_at, True
                break
        if not first:
            self._perhaps_empty[number] = None
        if is_head and lane.is_closed:
            self._place(number, lane)  # what it was closed for may have been of this job alone

    def lane_of(self, job: int) -> int | None:
        """Of the job that was given last by `by_rank`; None: it is another one."""
        return self._given.lane if self._given is not None and self._given.job == job else None

    def all_times_changed(self) -> None:
        for number, lane in self._lanes.items():
            self._forget(number, lane)

    def mark(self) -> None:
        """A part of the transaction begins."""
        self._marked = len(self._history)

    def undone(self) -> None:
        """What changed since `mark` is not so."""
        self._take_back(self._marked)

    def committed(self) -> None:
        self._changed.clear()
        self._history.clear()
        self._marked = 0

    def rolled_back(self) -> None:
        """What changed since the last commit is not so."""
        self._take_back(0)
        self._given = None
        self._changed.clear()
        self._marked = 0

    # what core.choice asks

    def by_rank(self, now: float) -> Iterator[Head]:
        self._put_back()
        self._open_due(now)
        while (found := self._first_open()) is not None:
            entry, head = found
            self._given = head
            yield head
            if self._lanes[head.lane].entry is entry:  # else it was closed, or has another head
                heapq.heappop(self._open)
                self._passed.append(entry)
        self._put_back()

    def close(self, lane: int, until: float) -> None:
        closed = self._lanes[lane]
        closed.entry, closed.is_closed = (until, lane), True
        heapq.heappush(self._closed, closed.entry)
        if self._open and self._open[0][1] == lane:
            heapq.heappop(self._open)

    def opening(self) -> tuple[Head, float] | None:
        while self._closed:
            until, number = entry = self._closed[0]
            lane = self._lanes.get(number)
            if lane is not None and lane.entry is entry:
                run_at, job = lane.first[0]  # of a closed lane it is known: where that changes, the lane is open again
                return Head(number, lane.traits, job, run_at), until
            heapq.heappop(self._closed)
        return None

    # the rest

    @property
    def size(self) -> int:
        """How many entries are kept, outdated ones too."""
        return len(self._open) + len(self._closed) + len(self._passed)

    def _first_open(self) -> tuple[_Entry, Head] | None:
        while self._open:
            entry = self._open[0]
            number = entry[1]
            lane = self._lanes.get(number)
            if lane is None or lane.entry is not entry:
                heapq.heappop(self._open)
                continue
            self._know(number, lane)
            if not lane.first:
                lane.entry = None
                self._perhaps_empty[number] = None
                heapq.heappop(self._open)
                continue
            run_at, job = lane.first[0]
            exact = rank(lane.traits, run_at, job)
            if exact == entry[0]:
                return entry, Head(number, lane.traits, job, run_at)
            lane.entry = (exact, number)
            heapq.heapreplace(self._open, lane.entry)
        return None

    def _know(self, number: int, lane: _Lane) -> None:
        if lane.first or lane.is_whole:
            return
        found = self._look(number, KNOWN)
        lane.first, lane.is_whole = found, len(found) < KNOWN
        self._changed.add(number)
        times = [run_at for run_at, _ in found]
        if _ANY_TIME in times:  # it is alone, or for another look: the others are in the order of their times
            del found[max(1, times.index(_ANY_TIME)) :]
            lane.is_whole = False

    def _place(self, number: int, lane: _Lane) -> None:
        """Let it wait among the open lanes; where its first job is not known, at the lowest rank that job can have."""
        run_at, job = lane.first[0] if lane.first else (lane.not_before, 0)
        lane.entry, lane.is_closed = (rank(lane.traits, run_at, job), number), False
        heapq.heappush(self._open, lane.entry)
        self._remove_outdated()

    def _open_due(self, now: float) -> None:
        while self._closed and self._closed[0][0] <= now:
            entry = heapq.heappop(self._closed)
            lane = self._lanes.get(entry[1])
            if lane is not None and lane.entry is entry:
                self._place(entry[1], lane)

    def _put_back(self) -> None:
        while self._passed:
            heapq.heappush(self._open, self._passed.pop())

    def _remove_outdated(self) -> None:
        """Else a lane whose first job is due ever earlier would leave an entry each time."""
        if self.size <= 2 * len(self._lanes) + SPARE:
            return
        self._passed.clear()
        for heap, is_closed in ((self._open, False), (self._closed, True)):
            lanes = self._lanes.values()
            heap[:] = [lane.entry for lane in lanes if lane.entry is not None and lane.is_closed is is_closed]
            heapq.heapify(heap)

    def _take_back(self, position: int) -> None:
        while len(self._history) > position:
            number, lane, was_added = self._history.pop()
            if was_added:
                self._drop(number)
            else:
                self._put(number, lane)
                self._changed.add(number)
        for number in self._changed & self._lanes.keys():
            self._forget(number, self._lanes[number])

    def _forget(self, number: int, lane: _Lane) -> None:
        lane.first, lane.is_whole, lane.not_before = [], False, _ANY_TIME
        self._place(number, lane)

    def _put(self, number: int, lane: _Lane) -> None:
        self._lanes[number] = lane
        self._numbers[lane.traits] = number

    def _drop(self, number: int) -> None:
        lane = self._lanes.pop(number)
        if self._numbers.get(lane.traits) == number:
            del self._numbers[lane.traits]
        self._perhaps_empty.pop(number, None)
