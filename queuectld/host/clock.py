"""The daemon's time, for order and for delays: UNIX seconds.

The rule, for three clocks:

- How long to be patient (heartbeats, timeouts, pauses) is measured by `time.monotonic`, which nobody sets.
- What comes first, and when a job is due, is told by this `Clock`. It follows the wall clock forward at once. Where the
  wall clock is set back, it goes on steadily, ahead of the wall clock. So a job that is due stays due, and a delay of
  2 seconds does not become an hour. Within seconds it comes back to the wall clock together with all jobs that wait:
  both go back by the same time, so no job comes after another that it was before (setback.py). At a start it begins at
  the wall clock, and what waits goes back in the same way.
- What is planned for a time of day asks for the wall clock itself, each time anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Follows the wall clock forward, and CLOCK_BOOTTIME (which counts a suspended machine's time) otherwise.

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

    def ahead(self) -> float:
        """Seconds that it is ahead of the wall clock."""
        return max(0.0, self.now() - self._wall())

    def set_back(self, seconds: float) -> None:
        """Go on from so much earlier, though not from before the wall clock. Waiting jobs must be moved as well."""
        self._offset -= seconds
