"""The daemon's time: UNIX seconds that never go back while it runs, whatever happens to the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Follows the wall clock forward, and CLOCK_BOOTTIME (which counts a suspended machine's time) otherwise.

    If the wall clock is set back, jobs that are due must not become "not yet due", and a delay of 2 seconds must not
    become an hour: then time goes on from where it was. The difference is made up at the next start.

    Args:
        wall: UNIX seconds, which may jump.
        boottime: seconds since some moment, which may not.
    """

    def __init__(self, wall: Callable[[], float] = time.time, boottime: Callable[[], float] = _boottime) -> None:
        self._wall = wall
        self._boottime = boottime
        self._offset = wall() - boottime()

    def now(self) -> float:
        steady = self._boottime() + self._offset
        wall = self._wall()
        if wall > steady:
            self._offset += wall - steady
            return wall
        return steady
