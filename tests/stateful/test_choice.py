"""Whatever happened before, a worker that asks gets the job that the rule names, and nothing that may start is left.

Against a model that is slow and obvious: all waiting jobs are read, and the first one by the rule is picked. Only the
workers ask for what a store remembers of the lanes, so any number of changes may have come between two requests.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queuectl_protocol.jobs import ENDED, WAITING, JobState, Outcome
from queuectld.core.choice import Take, Wait, choose
from queuectld.store.base import JobRecord, NewJob
from queuectld.store.heads import SPARE
from queuectld.store.sqlite import open_store
from tests.store.jobs import ASKER, NOW, end, new_job

JOBS = st.builds(
    new_job,
    st.just(""),
    queue=st.sampled_from(["default", "other"]),
    priority=st.integers(-1, 1),
    run_at=st.integers(-3, 9).map(float),  # from now
)
PICK = st.integers(0, 1000)
"""Picks from what is there, modulo its number."""

STRAY_WAITING = """
    SELECT count(*) FROM jobs LEFT JOIN lanes ON lanes.number = jobs.lane
    WHERE jobs.state IN ('pending', 'failed') AND (jobs.queue, jobs.priority) IS NOT (lanes.queue, lanes.priority)
"""
STRAY_LANE = "SELECT count(*) FROM jobs WHERE state NOT IN ('pending', 'failed') AND lane IS NOT NULL"


class Choice(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="queuectl-choice-"))
        self.store = open_store(self.directory / "queue.db")
        self.now = NOW
        self.begun = self.marked = False
        self.ids = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    def waiting(self) -> list[JobRecord]:
        return self.in_states(WAITING)

    def in_states(self, states: tuple[JobState, ...] | frozenset[JobState]) -> list[JobRecord]:
        numbers = [number for state in JobState if state in states for number in self.store.in_state(state, 10_000)]
        return [record for number in sorted(numbers) if (record := self.store.get(number)) is not None]

    def named_by_the_rule(self) -> int | None:
        ready = [record for record in self.waiting() if record.run_at <= self.now]

        def order(record: JobRecord) -> tuple[int, float, int]:
            job = self.store.job(record.number)
            assert job is not None
            return -job.priority, record.run_at, record.number

        return min(ready, key=order).number if ready else None

    def write(self, change: Callable[[], object]) -> None:
        if not self.begun:
            self.store.begin()
            self.begun = True
        change()

    # what changes the lanes

    @rule(jobs=st.lists(JOBS, min_size=1, max_size=20))
    def enqueue(self, jobs: list[NewJob]) -> None:
        named = []
        for job in jobs:
            self.ids += 1
            named.append(msgspec.structs.replace(job, id=f"j{self.ids}", run_at=self.now + job.run_at))
        self.write(lambda: self.store.insert(named, self.now))

    @precondition(lambda self: self.ids)
    @rule(pick=PICK)
    def enqueue_again(self, pick: int) -> None:
        """The same id in another lane: nothing is inserted."""
        job = new_job(f"j{pick % self.ids + 1}", queue="nobody", run_at=self.now)
        self.write(lambda: self.store.insert([job], self.now))

    @rule(count=st.integers(1, SPARE), delay=st.sampled_from([-1.0, 5.0]), cancel=st.booleans())
    def many_lanes(self, count: int, delay: float, cancel: bool) -> None:
        """Of one job each, which may be cancelled at once: so empty lanes are made, and removed when others come."""

        def enqueue() -> None:
            self.ids += 1
            ids = [f"m{self.ids}-{n}" for n in range(count)]
            run_at = self.now + delay
            self.store.insert([new_job(each, queue=each, priority=-2, run_at=run_at) for each in ids], self.now)
            for each in ids if cancel else ids[1:]:
                ((number, _),) = self.store.resolve(each)[:1]
                self.change(number, JobState.CANCELLED, run_at)

        self.write(enqueue)

    @precondition(lambda self: self.waiting())
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        waiting = self.waiting()
        job = waiting[pick % len(waiting)]
        self.write(lambda: self.change(job.number, JobState.CANCELLED, job.run_at))

    @precondition(lambda self: self.in_states(ENDED))
    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        ended = self.in_states(ENDED)
        self.write(lambda: self.change(ended[pick % len(ended)].number, JobState.PENDING, self.now))

    @precondition(lambda self: self.in_states(ENDED))
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        ended = self.in_states(ENDED)
        self.write(lambda: self.store.delete([ended[pick % len(ended)].number]))

    @precondition(lambda self: self.store.running())
    @rule(
        pick=PICK,
        state=st.sampled_from([JobState.COMPLETED, JobState.FAILED, JobState.PENDING, JobState.DEAD]),
        delay=st.integers(0, 9),
    )
    def finish(self, pick: int, state: JobState, delay: int) -> None:
        running = self.store.running()
        attempt = running[pick % len(running)]
        outcome = Outcome.COMPLETED if state is JobState.COMPLETED else Outcome.FAILED
        # An interrupted job waits again with the time that it had, which is earlier than that of all around it.
        run_at = attempt.job.run_at if state is JobState.PENDING else self.now + delay
        self.write(
            lambda: end(
                self.store, attempt.job.number, attempt.number, state, outcome=outcome, run_at=run_at, now=self.now
            )
        )

    def change(self, number: int, state: JobState, run_at: float) -> None:
        self.store.update(number, state=state, attempts=0, run_at=run_at, cancelling=False, now=self.now)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def clock_is_set_back(self, seconds: float) -> None:
        self.now -= seconds
        self.write(lambda: self.store.shift_waiting(-seconds, self.now))

    # what a worker gets

    @rule(most=st.integers(1, 30))
    def ask(self, most: int) -> None:
        for _ in range(most):
            named = self.named_by_the_rule()
            decision = choose(self.store.heads, ASKER, self.now)
            if isinstance(decision, Wait):
                assert named is None
                assert decision.until == min((record.run_at for record in self.waiting()), default=None)
                return
            assert decision.head.job == named
            self.write(lambda decision=decision: self.start(decision))  # type: ignore[misc]

    def start(self, decision: Take) -> None:
        job = decision.head.job
        ready = self.store.runnable(job)
        assert ready is not None
        self.store.start_attempt(job, ready.last_attempt + 1, "token", "w1", self.now)

    @rule()
    def ask_without_a_transaction(self) -> None:
        """As nobody does; what is remembered of it must do no harm."""
        choose(self.store.heads, ASKER, self.now)

    # the transaction

    @precondition(lambda self: not self.marked)
    @rule()
    def mark(self) -> None:
        self.write(self.store.mark)
        self.marked = True

    @precondition(lambda self: self.marked)
    @rule(keep=st.booleans())
    def end_part(self, keep: bool) -> None:
        (self.store.keep if keep else self.store.undo)()
        self.marked = False

    @precondition(lambda self: self.begun and not self.marked)
    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.begun = False

    @precondition(lambda self: self.begun)
    @rule()
    def roll_back(self) -> None:
        self.store.rollback()
        self.begun = self.marked = False

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = open_store(self.directory / "queue.db")
        self.begun = self.marked = False

    # what is true at any time, and is found out without the heads

    @invariant()
    def waiting_jobs_are_in_their_lanes_and_no_others(self) -> None:
        for statement in (STRAY_WAITING, STRAY_LANE):
            assert self.store._db.rows(statement) == [(0,)]


TestChoice = Choice.TestCase
TestChoice.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
