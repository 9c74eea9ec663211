"""When a failed job is tried again."""

from __future__ import annotations

from queuectld.core.settings import Settings


def delay(attempts: int, settings: Settings, chance: float) -> float:
    """Seconds to wait after the `attempts`-th attempt failed: min(base ^ attempts, max), jitter added.

    Args:
        attempts: those started so far, at least 1.
        settings: `backoff_base`, `backoff_max` and `backoff_jitter` count.
        chance: a random number from 0 to 1, which picks a place in the jitter.
    """
    try:
        seconds = float(settings.backoff_base) ** attempts
    except OverflowError:
        return settings.backoff_max
    return min(seconds * (1 + settings.backoff_jitter * chance), settings.backoff_max)
