"""The backoff: exact figures of the contract's rule, and its edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectld.core import retry
from queuectld.core.policy import decide
from queuectld.core.settings import DEFINITIONS, Settings


def delay(attempts: int, chosen: Settings, chance: float) -> float:
    return retry.delay(attempts, decide(chosen), chance)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 2), (2, 4), (3, 8), (4, 16), (10, 1024), (11, 2048), (12, 3600), (13, 3600), (100, 3600)],
)
def test_the_default_rule(attempts: int, seconds: float) -> None:
    assert delay(attempts, Settings(), 0.0) == seconds


@pytest.mark.parametrize(
    ("base", "attempts", "seconds"),
    [
        (0.0, 1, 0.0),
        (0.0, 9, 0.0),
        (0.5, 2, 0.25),
        (1.0, 1, 1.0),
        (1.0, 10_000, 1.0),
        (1.5, 1, 1.5),
        (1.5, 2, 2.25),
        (1.5, 3, 3.375),
        (3.0, 7, 2187.0),
        (3.0, 8, 3600.0),
        (1000.0, 1, 1000.0),
        (1000.0, 2, 3600.0),
    ],
)
def test_other_bases(base: float, attempts: int, seconds: float) -> None:
    assert delay(attempts, Settings(backoff_base=base), 0.0) == seconds


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("base", [2, 2.0, 1000.0])
@pytest.mark.parametrize("attempts", [1023, 1024, 10_000])
def test_more_than_a_float_holds_is_the_maximum(base: float, attempts: int, jitter: float) -> None:
    """Also with a whole number for a base: a store may give one back, and int arithmetic overflows elsewhere."""
    assert delay(attempts, Settings(backoff_base=base, backoff_jitter=jitter), 1.0) == 3600.0


def test_a_maximum_of_zero_means_at_once() -> None:
    assert delay(1, Settings(backoff_max=0.0), 0.5) == 0.0
    assert delay(5000, Settings(backoff_max=0.0), 0.5) == 0.0


@pytest.mark.parametrize(
    ("chance", "seconds"), [(0.0, 8.0), (0.5, 8.4), (1.0, 8.8)], ids=["no luck", "in the middle", "all of it"]
)
def test_jitter_adds_a_share_of_the_delay(chance: float, seconds: float) -> None:
    assert delay(3, Settings(backoff_jitter=0.1), chance) == pytest.approx(seconds, rel=1e-12)


def test_jitter_does_not_pass_the_maximum() -> None:
    assert delay(3, Settings(backoff_jitter=1.0, backoff_max=10.0), 1.0) == 10.0


def _range(key: str) -> st.SearchStrategy[float]:
    return st.floats(DEFINITIONS[key].low, DEFINITIONS[key].high)


@settings(deadline=None)
@given(
    attempts=st.integers(1, 10_000),
    base=_range("backoff_base"),
    ceiling=_range("backoff_max"),
    jitter=_range("backoff_jitter"),
    chance=st.floats(0, 1),
)
def test_bounds_hold_for_every_setting(
    attempts: int, base: float, ceiling: float, jitter: float, chance: float
) -> None:
    chosen = Settings(backoff_base=base, backoff_max=ceiling, backoff_jitter=jitter)
    found = delay(attempts, chosen, chance)
    plain = delay(attempts, chosen, 0.0)
    assert math.isfinite(found)
    assert 0 <= plain <= found <= ceiling
    assert found <= plain * (1 + jitter)


@settings(deadline=None)
@given(attempts=st.integers(1, 5000), base=st.floats(1, 1000))
def test_delays_never_shrink_from_attempt_to_attempt(attempts: int, base: float) -> None:
    chosen = Settings(backoff_base=base)
    assert delay(attempts, chosen, 0.0) <= delay(attempts + 1, chosen, 0.0)
