"""The life of a job: THE table of transitions, and what an attempt's outcome turns a job into."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobState, Outcome
from queuectld.core import retry
from queuectld.core.policy import Policy


class Event(enum.StrEnum):
    """What happens to a job."""

    ENQUEUE = "asked for"
    LEASE = "a worker takes it"
    COMPLETE = "exit code 0"
    FAIL = "failed, attempts left"
    EXHAUST = "failed, attempts used up"
    INTERRUPT = "interrupted by a shutdown"
    CANCEL = "a person cancels it"
    ABORT = "its attempt has ended after a cancel"
    RETRY = "a person retries it"
    REMOVE = "it has ended, and is deleted"
    SHIFT = "the clock was set back, and what waits is moved along"


TRANSITIONS: dict[tuple[JobState | None, Event], JobState] = {
    (None, Event.ENQUEUE): JobState.PENDING,
    (JobState.PENDING, Event.LEASE): JobState.PROCESSING,
    (JobState.PENDING, Event.CANCEL): JobState.CANCELLED,
    (JobState.PROCESSING, Event.COMPLETE): JobState.COMPLETED,
    (JobState.PROCESSING, Event.FAIL): JobState.FAILED,
    (JobState.PROCESSING, Event.EXHAUST): JobState.DEAD,
    (JobState.PROCESSING, Event.INTERRUPT): JobState.PENDING,
    (JobState.PROCESSING, Event.CANCEL): JobState.PROCESSING,
    (JobState.PROCESSING, Event.ABORT): JobState.CANCELLED,
    (JobState.FAILED, Event.LEASE): JobState.PROCESSING,
    (JobState.FAILED, Event.CANCEL): JobState.CANCELLED,
    (JobState.DEAD, Event.RETRY): JobState.PENDING,
    (JobState.CANCELLED, Event.RETRY): JobState.PENDING,
}
"""What is not here can't happen. None: the job is not there yet.

A job that is cancelled while it runs goes on to be `processing` until its attempt has been ended. No other place names
a state that a job takes: not the operations, nor a statement of a store. REMOVE and SHIFT lead to no state.
"""

NEW = TRANSITIONS[None, Event.ENQUEUE]
"""The state of a job that was enqueued just now."""

LEASED = {before: after for (before, event), after in TRANSITIONS.items() if event is Event.LEASE and before}
"""What a lease makes of a job, by its state before."""

_REFUSALS: dict[tuple[JobState | None, Event], tuple[str, str]] = {
    (JobState.COMPLETED, Event.CANCEL): ("has already completed", ""),
    (JobState.CANCELLED, Event.CANCEL): ("is cancelled already", ""),
    (JobState.DEAD, Event.CANCEL): ("is dead: nothing is left to cancel", "`queuectl dlq purge` removes it"),
    (JobState.COMPLETED, Event.RETRY): (
        "has completed, and a completed job is not run again",
        "enqueue it as a new job",
    ),
    (JobState.PENDING, Event.RETRY): ("is pending: it will run anyway", ""),
    (JobState.FAILED, Event.RETRY): ("waits for its retry already", ""),
    (JobState.PROCESSING, Event.RETRY): ("is running", "`queuectl cancel` ends it; then it can be retried"),
}


def move(job_id: str, state: JobState | None, event: Event) -> JobState:
    """The state after `event`.

    Raises:
        ProtocolError: `invalid_state` where the table has no such transition.
    """
    after = TRANSITIONS.get((state, event))
    if after is None:
        why, hint = _REFUSALS.get((state, event), (f"is {state}", ""))
        raise ProtocolError("invalid_state", f"job {job_id} {why}", hint)
    return after


@dataclass(frozen=True, slots=True)
class Running:
    """What the decision about an ended attempt depends on."""

    id: str
    attempts: int
    """Started so far and counted, this one included."""
    cancelling: bool
    run_at: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an ended attempt turns its job, and itself, into."""

    state: JobState
    attempts: int
    run_at: float
    outcome: Outcome
    event: Event
    """What led to this."""


def settle(
    job: Running, outcome: Outcome, policy: Policy, now: float, chance: float, *, asked_for: bool = True
) -> Settlement:
    """Decide what becomes of a job whose attempt has ended.

    An attempt that completed before a cancel reached it has completed: its work is done. Any other end of a job that
    is being cancelled is its cancellation; it is not retried. An attempt that a daemon had interrupted does not count.
    One that was interrupted by somebody else does: a job that signals its own worker would run for ever otherwise.

    Args:
        job: as it was while the attempt ran.
        outcome: how the attempt ended.
        policy: of the job.
        now: UNIX seconds.
        chance: random, 0 to 1, for the jitter.
        asked_for: whether a daemon wanted the interruption, or the command never ran; of use with INTERRUPTED only.
    """
    attempts, run_at = job.attempts, job.run_at
    if outcome is Outcome.COMPLETED:
        event = Event.COMPLETE
    elif job.cancelling or outcome is Outcome.CANCELLED:
        event, outcome = Event.ABORT, Outcome.CANCELLED
    elif outcome is Outcome.INTERRUPTED and asked_for:
        event, attempts = Event.INTERRUPT, job.attempts - 1
    elif job.attempts < policy.max_retries:
        event, run_at = Event.FAIL, now + retry.delay(job.attempts, policy, chance)
    else:
        event = Event.EXHAUST
    return Settlement(move(job.id, JobState.PROCESSING, event), attempts, run_at, outcome, event)
