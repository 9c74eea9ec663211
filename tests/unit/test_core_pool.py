"""The pool's size: who is started, who retires, and how failed starts are slowed down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queuectld.core.pool import MAX_PAUSE, Plan, Throttle, plan

NAMES = st.lists(st.integers(0, 10**6).map(lambda number: f"w{number}"), max_size=20, unique=True)


def test_what_is_missing_is_started_at_once() -> None:
    assert plan(3, [], [], Throttle(), 0.0) == Plan(start=3)
    assert plan(3, ["a"], ["b"], Throttle(), 0.0) == Plan(start=1)


def test_a_full_pool_is_left_alone() -> None:
    assert plan(2, ["a"], ["b"], Throttle(), 0.0) == Plan()
    assert plan(0, [], [], Throttle(), 0.0) == Plan()


def test_idle_workers_retire_before_busy_ones() -> None:
    assert plan(2, ["a", "b"], ["c", "d"], Throttle(), 0.0) == Plan(retire=("c", "d"))
    assert plan(1, ["a", "b"], ["c"], Throttle(), 0.0) == Plan(retire=("c", "a"))
    assert plan(0, ["a"], ["b"], Throttle(), 0.0) == Plan(retire=("b", "a"))


@given(desired=st.integers(0, 40), names=NAMES, busy=st.integers(0, 20))
def test_the_plan_always_ends_at_the_desired_size(desired: int, names: list[str], busy: int) -> None:
    todo = plan(desired, names[:busy], names[busy:], Throttle(), 0.0)
    assert len(names) + todo.start - len(todo.retire) == desired
    assert set(todo.retire) <= set(names)
    assert not (todo.start and todo.retire)
    assert todo.again_at is None


def test_after_a_failed_start_nobody_is_started_before_the_pause_is_over() -> None:
    throttle = Throttle().after_failure(100.0)
    assert throttle.not_before == 101.0
    assert plan(5, [], [], throttle, 100.9) == Plan(again_at=101.0)
    assert plan(5, [], [], throttle, 101.0) == Plan(start=1), "one at a time until one succeeds"
    assert plan(5, [], [], throttle.after_success(), 100.0) == Plan(start=5)


def test_the_throttle_does_not_keep_workers_from_retiring() -> None:
    assert plan(0, [], ["a"], Throttle().after_failure(100.0), 100.0) == Plan(retire=("a",))


@given(failures=st.integers(1, 100))
def test_pauses_double_and_are_bounded(failures: int) -> None:
    throttle, pauses = Throttle(), []
    for _ in range(failures):
        throttle = throttle.after_failure(0.0)
        pauses.append(throttle.not_before)
    assert pauses == [min(2.0**turn, MAX_PAUSE) for turn in range(failures)]
