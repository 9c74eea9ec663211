"""The model and the SQLite store are led through the same life, by the core's decisions, and must agree all the way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import ENDED, WAITING, JobState, Outcome
from queuectld.core import lifecycle
from queuectld.core.lifecycle import Event
from queuectld.core.policy import Said, decide
from queuectld.core.settings import Settings
from queuectld.store.base import NewJob, Reader, Store, WorkerRecord
from queuectld.store.sqlite import open_store
from tests.store.jobs import NOW, new_job, next_due, next_ready
from tests.store.memory import MemoryStore

SETTINGS = Settings(backoff_base=2.0, backoff_max=20.0, backoff_jitter=0.5)
IDS = [f"j{i}" for i in range(25)]

JOBS = st.builds(
    new_job,
    st.sampled_from(IDS),
    queue=st.sampled_from(["default", "other"]),
    priority=st.integers(-2, 2),
    run_at=st.integers(-3, 12).map(float),  # from now
    max_retries=st.integers(0, 3),
    env=st.sampled_from([None, {}, {"A": "1"}, {"A": "1", "B": "2"}]),
)
PICK = st.integers(0, 1000)
"""Picks from what is there, modulo its number."""

Lease = tuple[int, int, str]
"""Job, attempt, token: what a worker holds."""


class RefusedAfterwards(Exception):  # noqa: N818 - it is no error, but a reason to undo what was done
    """An operation says no when it has changed things already."""


class Stores(RuleBasedStateMachine):
    """Each operation is a part of a transaction; a transaction takes in one or several, as in group commit."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="queuectl-stores-"))
        self.model = MemoryStore()
        self.sqlite = open_store(self.directory / "queue.db")
        self.reader = self.sqlite.reader()
        self.now = NOW
        self.begun = False
        self.leases: list[Lease] = []
        """All that were ever given out: the old ones come back late."""
        self.valid: dict[int, Lease] = {}
        """Those that may still finish, by job."""
        self.valid_on_disk: dict[int, Lease] = {}

    def teardown(self) -> None:
        self.reader.close()
        self.sqlite.close()
        shutil.rmtree(self.directory)

    def both(self, operation: Callable[[Store], object], *, refuse: bool = False) -> object:
        """Run an operation on both, in a part that is undone if the operation is refused; both must say the same."""
        if not self.begun:
            self.model.begin()
            self.sqlite.begin()
            self.begun = True
        answers: list[object] = []
        for store in (self.model, self.sqlite):
            store.mark()
            answer: object
            try:
                answer = operation(store)
            except (ProtocolError, RefusedAfterwards) as refusal:
                answer = type(refusal)
            if refuse:
                answer = RefusedAfterwards
            if answer in (ProtocolError, RefusedAfterwards):
                store.undo()
            else:
                store.keep()
            answers.append(answer)
        assert answers[0] == answers[1]
        return answers[0]

    # what clients ask for

    @rule(jobs=st.lists(JOBS, min_size=1, max_size=6))
    def enqueue(self, jobs: list[NewJob]) -> None:
        specs = [msgspec.structs.replace(job, run_at=self.now + job.run_at) for job in jobs]

        def insert(store: Store) -> list[tuple[str, int | None]]:
            inserted = store.insert(specs, self.now)
            if inserted.contradicted:
                raise RefusedAfterwards
            return [(job.id, number) for job, number in zip(specs, inserted.numbers, strict=True)]

        self.both(insert)

    @rule(job_id=st.sampled_from(IDS), refuse=st.booleans())
    def cancel(self, job_id: str, refuse: bool) -> None:
        def cancel(store: Store) -> None:
            for number, _ in store.resolve(job_id):
                job = store.get(number)
                assert job is not None
                state = lifecycle.move(job.id, job.state, Event.CANCEL)
                running = job.state is JobState.PROCESSING
                store.update(
                    number,
                    state=job.state if running else state,
                    attempts=job.attempts,
                    run_at=job.run_at,
                    cancelling=running,
                    now=self.now,
                )

        self.both(cancel, refuse=refuse)

    @rule(job_id=st.sampled_from(IDS))
    def retry(self, job_id: str) -> None:
        def retry(store: Store) -> None:
            for number, _ in store.resolve(job_id):
                job = store.get(number)
                assert job is not None
                state = lifecycle.move(job.id, job.state, Event.RETRY)
                store.update(number, state=state, attempts=0, run_at=self.now, cancelling=False, now=self.now)

        self.both(retry)

    @rule(state=st.sampled_from(ENDED), limit=st.integers(1, 3), refuse=st.booleans())
    def delete(self, state: JobState, limit: int, refuse: bool) -> None:
        self.both(lambda store: store.delete(store.in_state(state, limit)), refuse=refuse)

    @rule(key=st.sampled_from(["max_retries", "backoff_base"]), value=st.none() | st.integers(1, 9) | st.just(1.5))
    def configure(self, key: str, value: float | None) -> None:
        self.both(lambda store: store.unset_setting(key) if value is None else store.set_setting(key, value))

    @rule(count=st.integers(0, 3), refuse=st.booleans())
    def pool(self, count: int, refuse: bool) -> None:
        def pool(store: Store) -> None:
            store.set_desired_workers(count)
            for worker in store.workers()[count:]:
                store.remove_worker(worker.id)
            for i in range(count):
                store.add_worker(WorkerRecord(f"w{i}", "boot", 100 + i, 7, self.now))

        self.both(pool, refuse=refuse)

    # what workers do

    @rule(most=st.integers(1, 4), refuse=st.booleans())
    def claim(self, most: int, refuse: bool) -> None:
        def claim(store: Store) -> list[Lease]:
            taken: list[Lease] = []
            while len(taken) < most and (ready := next_ready(store, self.now)) is not None:
                assert ready == store.runnable(ready.number)
                attempt = ready.last_attempt + 1
                lease = (ready.number, attempt, f"token {ready.number} {attempt} {len(self.leases)}")
                store.start_attempt(*lease, "w1", self.now)
                taken.append(lease)
            return taken

        taken = self.both(claim, refuse=refuse)
        if isinstance(taken, list):
            self.leases += taken
            self.valid |= {lease[0]: lease for lease in taken}

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, outcome=st.sampled_from(Outcome), refuse=st.booleans(), chance=st.floats(0, 1))
    def finish(self, pick: int, outcome: Outcome, refuse: bool, chance: float) -> None:
        """By any lease that ever was; only one that is still valid may have an effect."""
        lease = self.leases[pick % len(self.leases)]
        answer = self.both(lambda store: self._finish(store, lease, outcome, chance), refuse=refuse)
        valid = self.valid.get(lease[0]) == lease
        assert answer is RefusedAfterwards or answer is valid
        if answer is True:
            del self.valid[lease[0]]

    def _finish(self, store: Store, lease: Lease, outcome: Outcome, chance: float) -> bool:
        number, attempt, token = lease
        running = store.running_attempt(number)
        if running is None or (running.number, running.token) != (attempt, token):
            return False
        job = running.job
        settled = lifecycle.settle(
            lifecycle.Running(job.id, job.attempts, job.cancelling, job.run_at),
            outcome,
            decide(SETTINGS, job=Said(job.max_retries)),
            self.now,
            chance,
        )
        failed = outcome is not Outcome.COMPLETED
        store.end_attempt(
            number,
            attempt,
            outcome=settled.outcome,
            exit_code=9 if failed else 0,
            signal=None,
            error="failed" if failed else None,
            state=settled.state,
            attempts=settled.attempts,
            run_at=settled.run_at,
            ended_at=self.now - 0.25,
            now=self.now,
        )
        return True

    @rule(later=st.sampled_from([0.0, -3.0, 3.0]))
    def ask(self, later: float) -> None:
        """Not at each step: what a store remembers of the last time is to be outdated by more than one change."""
        now = self.now + later
        named = self.model.job_named_by_the_rule(now)
        assert next_ready(self.sqlite, now) == next_ready(self.model, now) == named
        if named is None:
            assert next_due(self.sqlite, now) == next_due(self.model, now) == self.model.next_time()

    # what happens to the daemon

    @rule(seconds=st.sampled_from([0.001, 1.0, 7.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.001, 5.0, 3600.0]))
    def clock_is_set_back(self, seconds: float) -> None:
        self.now -= seconds
        self.both(lambda store: store.shift_waiting(-seconds, self.now))

    @precondition(lambda self: self.begun)
    @rule()
    def commit(self) -> None:
        self.model.commit()
        self.sqlite.commit()
        self.begun = False
        self.valid_on_disk = self.valid.copy()

    @precondition(lambda self: self.begun)
    @rule()
    def roll_back(self) -> None:
        self.model.rollback()
        self.sqlite.rollback()
        self.begun = False
        self.valid = self.valid_on_disk.copy()

    @rule()
    def crash(self) -> None:
        """What was not committed is gone, and what a process remembered as well."""
        self.sqlite.close()
        self.sqlite = open_store(self.directory / "queue.db")
        self.model.rollback()
        self.begun = False
        self.valid = self.valid_on_disk.copy()

    # what must be true at any time

    @invariant()
    def stores_agree(self) -> None:
        assert everything(self.sqlite) == everything(self.model)
        assert self.sqlite.last_seen_time() == self.model.last_seen_time()
        for state in JobState:
            assert self.sqlite.in_state(state, 3, 2) == self.model.in_state(state, 3, 2)

    @invariant()
    def readers_agree(self) -> None:
        assert everything(self.reader) == everything(self.model.reader())

    @invariant()
    def what_always_holds(self) -> None:
        store = self.sqlite
        running = store.running()
        assert {run.job.number: (run.job.number, run.number, run.token) for run in running} == self.valid
        assert len(running) == len(self.valid) == store.counts()[JobState.PROCESSING]
        for state, count in store.counts().items():
            numbers = store.in_state(state, 1000)
            assert len(numbers) == count
            for number in numbers:
                job = store.get(number)
                assert job is not None
                unfinished = [attempt for attempt in store.attempts(number) if attempt.ended_at is None]
                assert len(unfinished) == (state is JobState.PROCESSING)
                assert job.attempts <= max(job.max_retries, 1)
                assert not job.cancelling or state is JobState.PROCESSING
                if state in WAITING:
                    assert job.attempts < max(job.max_retries, 1)


def everything(reader: Reader) -> list[object]:
    """All that a reader can tell."""
    pages = []
    for state in (None, *JobState):
        for queue in (None, "default", "other"):
            after = None
            while True:
                page, after = reader.jobs(state, queue, 7, after)
                pages.append(page)
                if after is None:
                    break
    numbers = [number for job_id in IDS for number, _ in reader.resolve(job_id)]
    whole = [(reader.get(number), reader.job(number, env=True), reader.attempts(number)) for number in numbers]
    prefixes = [reader.resolve(ref) for ref in ("j", "j1", "j2", "x")]
    return [
        pages,
        whole,
        prefixes,
        reader.counts(),
        sorted(reader.settings().items()),
        reader.desired_workers(),
        reader.workers(),
        reader.running(),
    ]


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
