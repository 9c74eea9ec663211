"""When a failed job is tried again."""

from __future__ import annotations

from queuectld.core.policy import Policy


def delay(attempts: int, policy: Policy, chance: float) -> float:
    """Seconds to wait after the `attempts`-th attempt failed: min(base ^ attempts, max), jitter added.

    Args:
        attempts: those started so far, at least 1.
        policy: of the job; `backoff_base`, `backoff_max` and `backoff_jitter` count.
        chance: a random number from 0 to 1, which picks a place in the jitter.
    """
    try:
        seconds = float(policy.backoff_base) ** attempts
    except OverflowError:
        return policy.backoff_max
    return min(seconds * (1 + policy.backoff_jitter * chance), policy.backoff_max)
