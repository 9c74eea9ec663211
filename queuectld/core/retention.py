"""How long ended jobs are kept, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass

from queuectl_protocol.jobs import JobState
from queuectld.core.settings import Settings

SOONEST = 1.0
LATEST = 3600.0
"""Seconds between two looks for jobs that are too old: a tenth of the time they are kept, within these bounds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept of one state: for `seconds` after the end, and the `count` newest; 0 is no limit."""

    state: JobState
    seconds: float
    count: int

    def ended_before(self, now: float) -> float | None:
        """Who ended before this (UNIX seconds) is too old; None where nobody is."""
        return now - self.seconds if self.seconds else None

    def excess(self, there: int) -> int:
        """How many of the oldest are too many, if `there` are that many."""
        return max(0, there - self.count) if self.count else 0


def rules(settings: Settings) -> tuple[Rule, ...]:
    """The rule of every state that ends a job."""
    return (
        Rule(JobState.COMPLETED, settings.keep_completed, settings.keep_completed_count),
        Rule(JobState.DEAD, settings.keep_dead, settings.keep_dead_count),
        Rule(JobState.CANCELLED, settings.keep_cancelled, settings.keep_cancelled_count),
    )


def counts_matter(settings: Settings) -> bool:
    """Whether the end of a job can make the jobs of a state too many."""
    return bool(settings.keep_completed_count or settings.keep_dead_count or settings.keep_cancelled_count)


def pause(settings: Settings) -> float | None:
    """Seconds until the next look for jobs that are too old; None where no age is too old."""
    ages = [rule.seconds for rule in rules(settings) if rule.seconds]
    return min(max(min(ages) / 10, SOONEST), LATEST) if ages else None
