"""Which priority to look at next, without walking through all of them. No I/O: the store tells what it found."""

from __future__ import annotations

import heapq

_DUE = float("-inf")

_STALE = 64
"""Entries that no longer hold, of which so many and one for each priority may be kept."""


class Heads:
    """For each priority that has waiting jobs, a time that the first of them is not due before.

    A bound may be too early, never too late. Too early costs a look at the first job of that priority; so a job that
    has left the queue need not be told of, and what a rollback brings back only has to be looked at again.

    Attributes:
        is_complete: whether it knows all priorities that have waiting jobs. The store tells it of them once, and from
            then on of each job that begins to wait.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.is_complete = False
        self._bounds: dict[float, float] = {}
        self._due: list[float] = []
        """A heap of those that may have a job that is due; negative, so the highest priority comes first."""
        self._later: list[tuple[float, float]] = []
        """A heap of the others, by their bounds. Where a bound has changed, the old entry stays until it is on top."""
        self._raised: list[float] = []
        """Whose bounds were raised since the last commit: a rollback may bring an earlier job back."""
        self._is_sure = True
        """Whether all that it knows holds after a rollback too, but for what was raised."""

    def waits(self, priority: float, run_at: float) -> None:
        """A job of `priority` waits until `run_at`, a time in UNIX seconds, or -infinity where that is unknown."""
        bound = self._bounds.get(priority)
        if bound is None or run_at < bound:
            self._set(priority, run_at)

    def _set(self, priority: float, bound: float) -> None:
        self._bounds[priority] = bound
        if bound == _DUE:
            heapq.heappush(self._due, -priority)
        else:
            heapq.heappush(self._later, (bound, priority))
            if len(self._later) > 2 * len(self._bounds) + _STALE:
                # Else jobs that are due ever earlier would leave an entry each, until its time comes.
                self._later = [(bound, priority) for priority, bound in self._bounds.items() if bound != _DUE]
                heapq.heapify(self._later)

    @property
    def size(self) -> int:
        """How many entries are kept."""
        return len(self._bounds) + len(self._due) + len(self._later)

    def highest_due(self, now: float) -> float | None:
        """The highest priority that may have a job that is due at `now`."""
        while self._later and self._later[0][0] <= now:
            bound, priority = heapq.heappop(self._later)
            if self._bounds.get(priority) == bound:
                self._set(priority, _DUE)
        return -self._due[0] if self._due else None

    def all_due(self) -> list[float]:
        """All priorities that may have a job that is due, in no order."""
        return [-negative for negative in self._due]

    def earliest_later(self) -> tuple[float, float] | None:
        """The earliest bound of the priorities that have no job that is due, and the priority."""
        while self._later:
            bound, priority = self._later[0]
            if self._bounds.get(priority) == bound:
                return bound, priority
            heapq.heappop(self._later)
        return None

    def is_first(self, priority: float, run_at: float | None) -> None:
        """The first waiting job of the priority that `highest_due` or `earliest_later` told is due at `run_at`.

        None: no job of it waits.
        """
        if self._bounds[priority] == _DUE:
            heapq.heappop(self._due)
        self._raised.append(priority)
        if run_at is None:
            del self._bounds[priority]
        else:
            self._set(priority, run_at)

    def is_unsure(self) -> None:
        """What it is told before the next commit may be another thing after a rollback."""
        self._is_sure = False

    def committed(self) -> None:
        self._raised.clear()
        self._is_sure = True

    def rolled_back(self) -> None:
        """Some changes since the last commit, or all of them, are undone."""
        if not self._is_sure:
            self._forget()
            return
        raised, self._raised = self._raised, []
        for priority in raised:
            self.waits(priority, _DUE)
