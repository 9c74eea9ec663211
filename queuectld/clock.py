"""The daemon's time: UNIX seconds that never go back while it runs, whatever happens to the wall clock."""

from __future__ import annotations

import time


class Clock:
    """Follows the wall clock forward, and CLOCK_BOOTTIME (which counts a suspended machine's time) otherwise.

    If the wall clock is set back, jobs that are due must not become "not yet due", and a delay of 2 seconds must not
    become an hour: then time goes on from where it was. The difference is made up at the next start.
    """

    def __init__(self) -> None:
        self._offset = time.time() - _boottime()

    def now(self) -> float:
        steady = _boottime() + self._offset
        wall = time.time()
        if wall > steady:
            self._offset += wall - steady
            return wall
        return steady


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
