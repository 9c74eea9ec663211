"""The transition table against CONTRACT.md's, and what becomes of a job whose attempt has ended."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import ENDED, WAITING, JobState, Outcome
from queuectld.core import lifecycle
from queuectld.core.lifecycle import TRANSITIONS, Event, Running, Settlement, move
from queuectld.core.policy import Said, decide
from queuectld.core.settings import Settings

PENDING, PROCESSING, COMPLETED, FAILED, DEAD, CANCELLED = (
    JobState.PENDING,
    JobState.PROCESSING,
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.DEAD,
    JobState.CANCELLED,
)

LEAVES_TO: dict[JobState | None, set[JobState]] = {
    None: {PENDING},
    PENDING: {PROCESSING, CANCELLED},
    PROCESSING: {COMPLETED, FAILED, DEAD, PENDING, CANCELLED},
    COMPLETED: set(),
    FAILED: {PROCESSING, CANCELLED},
    DEAD: {PENDING},
    CANCELLED: {PENDING},
}
"""The column "leaves to" of the contract's table of job states."""

EFFECT: dict[Event, dict[JobState | None, JobState]] = {
    Event.ENQUEUE: {None: PENDING},
    Event.LEASE: {PENDING: PROCESSING, FAILED: PROCESSING},
    Event.COMPLETE: {PROCESSING: COMPLETED},
    Event.FAIL: {PROCESSING: FAILED},
    Event.EXHAUST: {PROCESSING: DEAD},
    Event.INTERRUPT: {PROCESSING: PENDING},
    Event.CANCEL: {PENDING: CANCELLED, PROCESSING: PROCESSING, FAILED: CANCELLED},
    Event.ABORT: {PROCESSING: CANCELLED},
    Event.RETRY: {DEAD: PENDING, CANCELLED: PENDING},
    Event.REMOVE: {},
    Event.SHIFT: {},
}
"""What each event does, written down a second time so that a slip in the table shows."""

NOW = 1_700_000_000.0
RUN_AT = NOW - 60
FAILURES = (Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST)
DEFAULTS = Settings()


def running(attempts: int, max_retries: int = 3, *, cancelling: bool = False) -> tuple[Running, Said]:
    return Running("j1", attempts, cancelling, RUN_AT), Said(max_retries)


def settle(
    job: tuple[Running, Said],
    outcome: Outcome,
    in_force: Settings,
    now: float,
    chance: float,
    *,
    asked_for: bool = True,
) -> Settlement:
    attempt, said = job
    return lifecycle.settle(attempt, outcome, decide(in_force, job=said), now, chance, asked_for=asked_for)


@pytest.mark.parametrize("state", [None, *JobState])
def test_a_state_leaves_to_what_the_contract_says(state: JobState | None) -> None:
    assert {after for (before, _), after in TRANSITIONS.items() if before is state} - {state} == LEAVES_TO[state]


@pytest.mark.parametrize(
    ("state", "event"),
    list(itertools.product([None, *JobState], Event)),
    ids=lambda value: getattr(value, "name", "new"),
)
def test_every_pair_is_in_the_table_or_refused(state: JobState | None, event: Event) -> None:
    expected = EFFECT[event].get(state)
    if expected is not None:
        assert move("j1", state, event) is expected
        return
    with pytest.raises(ProtocolError) as caught:
        move("j1", state, event)
    assert caught.value.kind == "invalid_state"
    assert caught.value.message.startswith("job j1 ")


@pytest.mark.parametrize("event", [Event.CANCEL, Event.RETRY])
def test_what_a_person_is_refused_is_explained(event: Event) -> None:
    refused = [state for state in JobState if (state, event) not in TRANSITIONS]
    assert refused
    for state in refused:
        with pytest.raises(ProtocolError) as caught:
            move("j1", state, event)
        assert caught.value.message != f"job j1 is {state}", "a bare state explains nothing"


def test_waiting_and_ended_states_agree_with_the_table() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.LEASE} == set(WAITING)
    assert set(ENDED) == set(JobState) - set(WAITING) - {PROCESSING}
    for state in ENDED:
        assert {event for before, event in TRANSITIONS if before is state} <= {Event.RETRY}


@pytest.mark.parametrize("cancelling", [False, True])
@pytest.mark.parametrize(("attempts", "max_retries"), [(1, 0), (1, 1), (1, 3), (2, 3), (3, 3), (7, 3)])
def test_completed_is_completed_even_under_a_cancel(attempts: int, max_retries: int, *, cancelling: bool) -> None:
    job = running(attempts, max_retries, cancelling=cancelling)
    assert settle(job, Outcome.COMPLETED, DEFAULTS, NOW, 0.5) == Settlement(
        COMPLETED, attempts, RUN_AT, Outcome.COMPLETED, Event.COMPLETE
    )


@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize(
    ("attempts", "max_retries", "expected"),
    [
        (1, 3, (FAILED, NOW + 2)),
        (2, 3, (FAILED, NOW + 4)),
        (3, 3, (DEAD, RUN_AT)),
        (1, 0, (DEAD, RUN_AT)),
        (1, 1, (DEAD, RUN_AT)),
        (1, 2, (FAILED, NOW + 2)),
        (2, 2, (DEAD, RUN_AT)),
        (4, 3, (DEAD, RUN_AT)),
        (11, 20, (FAILED, NOW + 2048)),
        (12, 20, (FAILED, NOW + 3600)),
        (9_999, 10_000, (FAILED, NOW + 3600)),
    ],
)
def test_a_failure_is_retried_until_its_attempts_are_used_up(
    outcome: Outcome, attempts: int, max_retries: int, expected: tuple[JobState, float]
) -> None:
    state, run_at = expected
    found = settle(running(attempts, max_retries), outcome, DEFAULTS, NOW, 0.0)
    assert found == Settlement(state, attempts, run_at, outcome, Event.FAIL if state is FAILED else Event.EXHAUST)


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_an_interrupted_attempt_does_not_count(attempts: int, max_retries: int) -> None:
    found = settle(running(attempts, max_retries), Outcome.INTERRUPTED, DEFAULTS, NOW, 0.0)
    assert found == Settlement(PENDING, attempts - 1, RUN_AT, Outcome.INTERRUPTED, Event.INTERRUPT)


def test_an_interruption_that_nobody_asked_for_counts() -> None:
    found = settle(running(1, 2), Outcome.INTERRUPTED, DEFAULTS, NOW, 0.0, asked_for=False)
    assert found == Settlement(FAILED, 1, NOW + 2, Outcome.INTERRUPTED, Event.FAIL)
    found = settle(running(2, 2), Outcome.INTERRUPTED, DEFAULTS, NOW, 0.0, asked_for=False)
    assert found == Settlement(DEAD, 2, RUN_AT, Outcome.INTERRUPTED, Event.EXHAUST)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED])
@pytest.mark.parametrize(("attempts", "max_retries"), [(1, 3), (3, 3), (1, 0)])
def test_any_other_end_under_a_cancel_is_the_cancellation(outcome: Outcome, attempts: int, max_retries: int) -> None:
    found = settle(running(attempts, max_retries, cancelling=True), outcome, DEFAULTS, NOW, 0.0)
    assert found == Settlement(CANCELLED, attempts, RUN_AT, Outcome.CANCELLED, Event.ABORT)


@pytest.mark.parametrize("attempts", [1, 3])
def test_an_attempt_that_was_ended_by_a_cancel_is_not_retried(attempts: int) -> None:
    found = settle(running(attempts), Outcome.CANCELLED, DEFAULTS, NOW, 0.0)
    assert found == Settlement(CANCELLED, attempts, RUN_AT, Outcome.CANCELLED, Event.ABORT)


def test_the_jitter_reaches_run_at() -> None:
    found = settle(running(1), Outcome.FAILED, Settings(backoff_jitter=0.5), NOW, 1.0)
    assert found.run_at == NOW + 3.0


@settings(deadline=None)
@given(
    max_retries=st.integers(0, 12),
    outcomes=st.lists(st.sampled_from(Outcome), max_size=60),
    cancelled_at=st.none() | st.integers(0, 60),
    chance=st.floats(0, 1),
)
def test_a_whole_life(max_retries: int, outcomes: list[Outcome], cancelled_at: int | None, chance: float) -> None:
    """One job through attempt after attempt, as a supervisor would drive it."""
    state, attempts, executions = PENDING, 0, 0
    for number, outcome in enumerate(outcomes):
        if state not in WAITING:
            break
        state, attempts = move("j1", state, Event.LEASE), attempts + 1
        counted_before = attempts - 1
        cancelling = number == cancelled_at
        found = settle(running(attempts, max_retries, cancelling=cancelling), outcome, DEFAULTS, NOW, chance)
        assert found.state in LEAVES_TO[PROCESSING]
        if cancelling:
            assert found.state in {COMPLETED, CANCELLED}, (
                "a cancelled job was put up for another attempt, or in the DLQ"
            )
        if found.outcome is Outcome.INTERRUPTED:
            assert found.attempts == counted_before
            assert found.state is PENDING
        else:
            assert found.attempts == counted_before + 1
            executions += 1
        if found.state is FAILED:
            assert found.run_at >= NOW
        state, attempts = found.state, found.attempts
        assert 0 <= attempts <= max(1, max_retries)
    assert executions <= max(1, max_retries), "no more executions than max_retries"
    if state is DEAD:
        assert executions == max(1, max_retries), "dead only when the attempts are used up"
