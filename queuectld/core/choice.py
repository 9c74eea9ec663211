"""Which job is next, and why a job waits: the one decision that workers, the daemon's timer and `explain` share.

Waiting jobs that differ in nothing that is looked at here but their time form a lane, so only the first job of each
lane, its head, is decided about. A store offers the heads, and knows none of the rules. A new rule is an entry in
`RULES`; if it looks at something else of a job, that is a new field of `Traits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Rank = tuple[float, float, int]
"""Comparable: the job with the lowest one is the next."""


class Traits(NamedTuple):
    """What the jobs of a lane have in common."""

    queue: str
    priority: int


class Head(NamedTuple):
    """The first waiting job of a lane."""

    lane: int
    """The lane's number."""
    traits: Traits
    job: int
    """The job's number."""
    run_at: float
    """UNIX seconds; -infinity where what is stored is no time, so that a worker's request finds that out."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a job."""

    worker: str


@dataclass(frozen=True, slots=True)
class NothingWaits:
    """No job waits."""


@dataclass(frozen=True, slots=True)
class NotBefore:
    """The job's time has not come."""

    run_at: float
    """UNIX seconds."""


Reason = NothingWaits | NotBefore


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a job from being started."""

    reason: Reason
    until: float | None
    """UNIX seconds at which it is gone for whoever asks; None: something else has to change first."""


@dataclass(frozen=True, slots=True)
class Take:
    """Start the first job of this lane."""

    head: Head


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may start."""

    reasons: tuple[Reason, ...]
    """Why, the decisive one first: of the job with the lowest rank of which no time is known; else of the earliest."""
    until: float | None
    """UNIX seconds at which a job may start if nothing changes before; None: something has to change first."""


class Lanes(Protocol):
    """What a store offers: the lanes that have waiting jobs, closed ones apart. See store.heads.Heads."""

    def by_rank(self, now: float) -> Iterator[Head]:
        """The heads of the open lanes, the lowest rank first. A lane whose time has come is open again."""

    def close(self, lane: int, until: float) -> None:
        """Leave the lane out of `by_rank` until then (UNIX seconds), or until its head is another one."""

    def opening(self) -> tuple[Head, float] | None:
        """Of the closed lanes the one that opens first, and when."""


def rank(traits: Traits, run_at: float, job: int) -> Rank:
    """The highest priority comes first, then the earliest `run_at`, then the lowest number.

    It grows with `run_at` and with `job`, and does not depend on the time at which it is asked for: a lane keeps its
    place among the others until its head is another job.
    """
    return -traits.priority, run_at, job


Rule = Callable[[Head, Asker, float], Obstacle | None]


def _not_before(head: Head, _asker: Asker, now: float) -> Obstacle | None:
    return None if head.run_at <= now else Obstacle(NotBefore(head.run_at), head.run_at)


RULES: tuple[Rule, ...] = (_not_before,)
"""The most decisive first."""


def obstacles(head: Head, asker: Asker, now: float, rules: Sequence[Rule] = RULES) -> list[Obstacle]:
    """All that keeps the job from being started by `asker`, the decisive one first; none: it may start."""
    return [obstacle for rule in rules if (obstacle := rule(head, asker, now)) is not None]


def choose(lanes: Lanes, asker: Asker, now: float, rules: Sequence[Rule] = RULES) -> Take | Wait:
    """The job that `asker` starts: of those that may start, the one with the lowest rank."""
    passed_over: list[Obstacle] = []
    for head in lanes.by_rank(now):
        found = obstacles(head, asker, now, rules)
        if not found:
            return Take(head)
        until = [obstacle.until for obstacle in found if obstacle.until is not None]
        if len(until) == len(found):
            lanes.close(head.lane, max(until))
        else:
            passed_over = passed_over or found
    opening = lanes.opening()
    if opening is None:
        return Wait(tuple(obstacle.reason for obstacle in passed_over) or (NothingWaits(),), None)
    head, opens = opening
    return Wait(tuple(obstacle.reason for obstacle in passed_over or obstacles(head, asker, now, rules)), opens)
