"""Heartbeats: who is silent, and when a daemon may judge at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.core.leases import Verdict, check, overslept

TIMES = st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1000), max_size=8)


def test_nobody_is_there_to_be_silent() -> None:
    assert check({}, 30.0, 100.0) == Verdict((), None)


def test_silence_begins_after_the_timeout_not_at_it() -> None:
    assert check({"a": 70.0}, 30.0, 100.0) == Verdict((), 100.0)
    assert check({"a": 69.9}, 30.0, 100.0) == Verdict(("a",), None)


def test_the_next_look_is_when_the_next_one_could_be_silent() -> None:
    assert check({"a": 60.0, "b": 90.0, "c": 80.0}, 30.0, 100.0) == Verdict(("a",), 110.0)


@given(seen=TIMES, timeout=st.floats(0.5, 100), now=st.floats(0, 1000))
def test_everyone_is_either_silent_or_looked_at_again_in_time(
    seen: dict[str, float], timeout: float, now: float
) -> None:
    verdict = check(seen, timeout, now)
    waiting = set(seen) - set(verdict.silent)
    assert all(now - seen[worker] > timeout for worker in verdict.silent)
    assert all(now - seen[worker] <= timeout for worker in waiting)
    if verdict.again_at is None:
        assert not waiting
    else:
        assert verdict.again_at == min(seen[worker] + timeout for worker in waiting)


@pytest.mark.parametrize(("late", "judges"), [(0.0, True), (7.4, True), (7.6, False), (1000.0, False)])
def test_a_daemon_that_was_stopped_itself_judges_nobody(late: float, judges: bool) -> None:
    assert overslept(due=100.0, now=100.0 + late, timeout=30.0) is not judges
