"""Timers of the event loop by name: one each, all cancelled together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Timers:
    def __init__(self) -> None:
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}

    def set(self, name: str, when: float, call: Callable[[], object], *, keep_earlier: bool = False) -> None:
        """Have `call` run at `when` (monotonic seconds); one timer a name, the last one that was set.

        With `keep_earlier`, a timer of that name stays where it is due before `when`.
        """
        old = self._timers.get(name)
        if old is not None:
            if keep_earlier and old[0] <= when:
                return
            old[1].cancel()
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.pop(name, None)
            call()

        self._timers[name] = (when, loop.call_later(max(0.0, when - time.monotonic()), run))

    def cancel_all(self) -> None:
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
