"""What is kept: by age, by count, and when to look again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl_protocol.jobs import ENDED, JobState
from queuectld.core.retention import LATEST, SOONEST, Rule, pause, rules
from queuectld.core.settings import DAY, Settings

NOW = 1_700_000_000.0
FOR_EVER = Settings(keep_completed=0, keep_cancelled=0)


def test_there_is_a_rule_for_every_state_that_ends_a_job_and_no_other() -> None:
    assert {rule.state for rule in rules(Settings())} == set(ENDED)


def test_each_rule_has_its_own_settings() -> None:
    settings = Settings(
        keep_completed=1, keep_completed_count=2, keep_dead=3, keep_dead_count=4, keep_cancelled=5,
        keep_cancelled_count=6,
    )  # fmt: skip
    assert {rule.state: (rule.seconds, rule.count) for rule in rules(settings)} == {
        JobState.COMPLETED: (1, 2),
        JobState.DEAD: (3, 4),
        JobState.CANCELLED: (5, 6),
    }


def test_the_defaults_keep_the_dead_for_ever_and_the_others_for_30_days() -> None:
    kept = {rule.state: rule.ended_before(NOW) for rule in rules(Settings())}
    assert kept == {JobState.COMPLETED: NOW - 30 * DAY, JobState.DEAD: None, JobState.CANCELLED: NOW - 30 * DAY}
    assert [rule.excess(10**9) for rule in rules(Settings())] == [0, 0, 0]


@given(count=st.integers(1, 10**9), there=st.integers(0, 10**9))
def test_no_more_than_the_count_stay_and_no_fewer_are_kept_than_there_are(count: int, there: int) -> None:
    excess = Rule(JobState.DEAD, 0, count).excess(there)
    assert there - excess == min(there, count)


def test_no_limit_is_no_limit() -> None:
    rule = Rule(JobState.DEAD, 0, 0)
    assert (rule.excess(10**9), rule.ended_before(NOW)) == (0, None)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.001, SOONEST), (9, SOONEST), (10, 1.0), (100, 10.0), (30 * DAY, LATEST), (36_000, LATEST), (35_999, 3599.9)],
)
def test_the_next_look_is_after_a_tenth_of_the_age_within_bounds(seconds: float, expected: float) -> None:
    assert pause(Settings(keep_completed=seconds, keep_cancelled=0)) == pytest.approx(expected)


def test_the_shortest_age_decides_when_to_look() -> None:
    assert pause(Settings(keep_completed=1000, keep_dead=200, keep_cancelled=0)) == 20


def test_where_all_is_kept_for_ever_nobody_looks() -> None:
    assert pause(FOR_EVER) is None
