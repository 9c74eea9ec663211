"""Heartbeats: which workers have fallen silent, and when to look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is silent for too long, and when (monotonic seconds) the next one could be."""

    silent: tuple[str, ...]
    again_at: float | None


def check(last_seen: Mapping[str, float], timeout: float, now: float) -> Verdict:
    """
    Args:
        last_seen: worker id -> monotonic seconds of its last sign of life.
        timeout: seconds after which it counts as silent.
        now: monotonic seconds.
    """
    silent = tuple(worker for worker, seen in last_seen.items() if now - seen > timeout)
    others = [seen + timeout for worker, seen in last_seen.items() if now - seen <= timeout]
    return Verdict(silent, min(others, default=None))


def overslept(due: float, now: float, timeout: float) -> bool:
    """Whether this daemon itself was not running (stopped, starved) for so long that the silence may be its own.

    Then nobody is judged: messages that wait to be read may be signs of life. Everyone gets a new, full timeout.
    """
    return now - due > timeout / 4
