"""A wall clock that is set to anything at any time: what that does to the jobs that wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from queuectld.host.clock import Clock
from queuectld.queue import setback
from queuectld.store.base import StorageFull
from queuectld.store.committer import Committer
from tests.store.jobs import new_job
from tests.store.memory import MemoryStore


@dataclass
class Machine:
    """A daemon's clocks and its store."""

    wall: float = 1_700_000_000.0
    boottime: float = 500.0
    store: MemoryStore = field(default_factory=MemoryStore)
    due: dict[str, float] = field(default_factory=dict)
    """By job: when it is due at the latest, as a stopwatch tells it."""

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.wall, lambda: self.boottime)
        self.committer = Committer(self.store, lambda _error: None, lambda: False)

    async def enqueue(self, delay: float) -> None:
        job_id = f"j{len(self.due)}"
        now = self.clock.now()
        self.due[job_id] = self.boottime + delay
        await self.committer.submit(lambda store: store.insert([new_job(job_id, run_at=now + delay)], now))

    def run_at(self, job_id: str) -> float:
        ((number, _),) = self.store.resolve(job_id)
        job = self.store.get(number)
        assert job is not None
        return job.run_at

    def order(self) -> list[str]:
        return sorted(self.due, key=lambda job_id: (self.run_at(job_id), int(job_id[1:])))

    def check(self) -> None:
        for job_id, due in self.due.items():
            if due <= self.boottime:
                assert self.run_at(job_id) <= self.clock.now(), "no delay grows"


# Whole seconds, so that no sum is rounded.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(0, 10**5)),
        st.tuples(st.just("jump"), st.integers(-(10**8), 10**8)),
        st.tuples(st.just("enqueue"), st.integers(0, 10**5)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=50)
@given(STEPS)
def test_no_delay_grows_no_order_changes_and_the_clock_comes_back(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        machine = Machine()
        machine.committer.start()
        for step, seconds in [*steps, ("look", 0)]:
            if step == "pass":
                machine.wall += seconds
                machine.boottime += seconds
            elif step == "jump":
                machine.wall += seconds
            elif step == "enqueue":
                await machine.enqueue(seconds)
            else:
                before = machine.order()
                left = {job_id: machine.run_at(job_id) - machine.clock.now() for job_id in before}
                await setback.come_back(machine.clock, machine.committer)
                assert abs(machine.clock.now() - machine.wall) <= setback.SLACK
                assert machine.order() == before
                for job_id in before:
                    assert machine.run_at(job_id) - machine.clock.now() == left[job_id]
            machine.check()
        await machine.committer.stop()

    asyncio.run(main())


def test_where_the_jobs_can_not_be_moved_the_clock_stays_with_them() -> None:
    class Full(MemoryStore):
        full = False

        def commit(self) -> None:
            if self.full:
                raise StorageFull("full")
            super().commit()

    async def main() -> None:
        store = Full()
        machine = Machine(store=store)
        machine.committer.start()
        await machine.enqueue(10)
        machine.wall -= 3600
        store.full = True
        assert not await setback.come_back(machine.clock, machine.committer)
        assert machine.clock.ahead() == 3600
        store.full = False
        asked = asyncio.ensure_future(setback.come_back(machine.clock, machine.committer))
        await asyncio.sleep(0)
        await machine.enqueue(5)  # while the move is on its way
        assert await asked
        now = machine.clock.now()
        assert [round(machine.run_at(job_id) - now) for job_id in ("j0", "j1")] == [10, 5]
        await machine.committer.stop()

    asyncio.run(main())
