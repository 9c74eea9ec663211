"""A log that keeps its newest output: what is older is given back to the file system while the job writes on.

The job writes straight into the file. Behind its back a hole is punched at the beginning (fallocate(2)): no copying, no
pipe, the job is not slowed, and offsets stay what they were.
"""

from __future__ import annotations

import ctypes
import os

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLOCK = 4096

SLOWEST = 1.0
FASTEST = 0.02
"""Seconds between two looks: the faster the log grows, the sooner the next one."""


class LimitedLog:
    """Keeps the disk usage of an open log near a limit.

    Between two looks a job can write more than the limit; the next look gives it back. How soon that is depends on
    how fast the log grew so far.
    """

    def __init__(self, descriptor: int, limit: int, now: float) -> None:
        """Take over the `descriptor` of an empty file; `limit` is in bytes, above 0."""
        self.next_look: float | None = now + FASTEST
        """`time.monotonic()` of the next look; None: none is needed any more."""
        self._descriptor = descriptor
        self._limit = limit
        self._size = 0
        self._cut = 0
        self._looked_at = now

    def look(self, now: float) -> None:
        """Give back what is over the limit, if it is time to look."""
        if self.next_look is None or now < self.next_look:
            return
        size = os.fstat(self._descriptor).st_size
        rate = max(0, size - self._size) / max(now - self._looked_at, 1e-3)
        self._size, self._looked_at = size, now
        self._cut = min(self._cut, size)  # the job may have emptied it
        if size - self._cut > self._limit:
            self._punch(size - self._limit)
        if self.next_look is not None:
            room = self._limit / 4
            self.next_look = now + (SLOWEST if rate * SLOWEST <= room else max(FASTEST, room / rate))

    def _punch(self, end: int) -> None:
        # Up to a block's end: the newest `limit` bytes stay whole, and the hole takes whole blocks.
        end -= end % _BLOCK
        if self._give_back(end):
            self._cut = end
        else:
            self.next_look = None  # a file system that can't: the log grows

    def _give_back(self, end: int) -> bool:
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.fallocate(self._descriptor, mode, ctypes.c_long(0), ctypes.c_long(end)) == 0)

    def close(self) -> None:
        """Look for the last time, now that nobody writes any more."""
        if self.next_look is not None:
            size = os.fstat(self._descriptor).st_size
            if size - self._cut > self._limit:
                self._punch(size - self._limit)
        os.close(self._descriptor)
