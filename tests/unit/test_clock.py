"""The daemon's time under a wall clock that jumps."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from queuectld.host.clock import Clock


class Machine:
    """Its two clocks."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.boottime = 500.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.boottime)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.boottime += seconds


def test_it_is_the_wall_clock_where_that_behaves() -> None:
    machine = Machine()
    clock = machine.clock()
    for seconds in (0.0, 0.5, 3600.0):
        machine.passes(seconds)
        assert clock.now() == machine.wall


def test_set_back_time_goes_on_from_where_it_was() -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.wall -= 86_400
    assert clock.now() == before
    machine.passes(2)
    assert clock.now() == before + 2, "a delay of two seconds takes two seconds"


def test_set_forward_it_follows() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 86_400
    assert clock.now() == machine.wall
    machine.passes(1)
    assert clock.now() == machine.wall


def test_forward_and_back_again_never_goes_back() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 3600
    ahead = clock.now()
    machine.wall -= 3600
    machine.passes(5)
    assert clock.now() == ahead + 5


def test_a_small_step_back_is_made_up_for_when_the_wall_clock_has_caught_up() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 10
    machine.passes(3)
    machine.wall += 10
    assert clock.now() == machine.wall


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9))))
def test_whatever_happens_it_never_goes_back_nor_slower_than_time(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock.now()
    for seconds, jump in steps:
        machine.passes(seconds)
        machine.wall += jump
        now = clock.now()
        assert now >= last + seconds - 1e-3
        last = now


def test_set_back_it_is_ahead_until_it_is_set_back_too() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 3600
    assert clock.ahead() == 3600
    clock.set_back(3600)
    assert clock.now() == machine.wall
    assert clock.ahead() == 0
    clock.set_back(3600)
    assert clock.now() == machine.wall, "never before the wall clock"


def test_the_real_clocks() -> None:
    before = time.time()
    assert before <= Clock().now() + 1e-3
    assert Clock().now() <= time.time() + 1e-3
