"""How many workers there should be, against how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPAWN_WINDOW = 10.0
"""Seconds; a worker that ends sooner after its start than this without having attached is a failed start."""

MAX_PAUSE = 30.0
"""Seconds between two starts at the most, however often they fail."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """Remembers failed starts, so that a worker that can't start is not started in a tight loop."""

    failures: int = 0
    not_before: float = 0.0

    def after_failure(self, now: float) -> Throttle:
        """1, 2, 4 ... seconds, at most MAX_PAUSE, until the next start."""
        return Throttle(self.failures + 1, now + min(2.0 ** min(self.failures, 10), MAX_PAUSE))

    def after_success(self) -> Throttle:
        return Throttle()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: start that many, retire those; look again at `again_at` (monotonic seconds) if it is set."""

    start: int = 0
    retire: tuple[str, ...] = ()
    again_at: float | None = None


def plan(desired: int, busy: Sequence[str], idle: Sequence[str], throttle: Throttle, now: float) -> Plan:
    """Bring the pool to its desired size.

    Args:
        desired: how many workers should be there.
        busy: ids of those that run something, retiring ones not included.
        idle: ids of those that run nothing (or are being started), retiring ones not included; the first retire first.
        throttle: of failed starts.
        now: monotonic seconds.
    """
    missing = desired - len(busy) - len(idle)
    if missing > 0:
        if now < throttle.not_before:
            return Plan(again_at=throttle.not_before)
        # After a failed start one at a time, until one succeeds.
        return Plan(start=1 if throttle.failures else missing)
    return Plan(retire=tuple([*idle, *busy][: -missing or 0]) if missing else ())
