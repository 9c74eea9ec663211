"""The change stream: what is told of, when, and that nothing is missing in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import ENDED, WAITING, JobSpec, JobState, Outcome
from queuectl_protocol.messages import AttemptResult, Lease
from queuectld.core.lifecycle import TRANSITIONS, Event
from queuectld.core.settings import Settings
from queuectld.queue import change, remove
from queuectld.queue.changes import After, Change, ChangeStream
from queuectld.queue.enqueue import Enqueue
from queuectld.queue.finish import finish
from queuectld.queue.lease import lease
from queuectld.queue.settle import settle_worker
from queuectld.store.base import StorageFailed, StorageFull, Store
from queuectld.store.committer import Changed, Committer
from queuectld.store.sqlite import open_store
from tests.store.jobs import NOW, sqlite_store
from tests.store.memory import MemoryStore


def noted(number: int) -> Callable[[Store], Changed[int]]:
    """An operation that changes a job, and says so."""

    def operation(store: Store) -> Changed[int]:
        store.set_setting(f"s{number}", number)
        return Changed(number, [Change(number, None, After(JobState.PENDING), Event.ENQUEUE)])

    return operation


def refused(_store: Store) -> Changed[int]:
    raise ProtocolError("conflict", "no")


def told_by(
    store: Store, use: Callable[[Committer, list[list[int]]], Awaitable[None]], make_room: bool = False
) -> list[list[int]]:
    """The numbers of the jobs that were told of, commit by commit; of those commits that told of any."""
    told: list[list[int]] = []

    def tell(changes: Sequence[Change]) -> None:
        if changes:
            told.append([one.job for one in changes])

    async def main() -> None:
        stream = ChangeStream()
        stream.subscribe(tell)
        committer = Committer(store, lambda _error: None, lambda: make_room, stream.publish)
        committer.start()
        await use(committer, told)
        await committer.stop()
        await asyncio.sleep(0)

    asyncio.run(main())
    return told


class Failing(MemoryStore):
    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.faults = [*faults]

    def commit(self) -> None:
        if self.faults:
            raise self.faults.pop(0)
        super().commit()


def test_changes_are_told_once_in_their_order_before_anybody_is_answered() -> None:
    async def use(committer: Committer, told: list[list[int]]) -> None:
        futures = [committer.submit(noted(number)) for number in (1, 2, 3)]
        futures[0].add_done_callback(lambda _future: told.append([-1]))
        assert await asyncio.gather(*futures) == [1, 2, 3]

    assert told_by(MemoryStore(), use) == [[1, 2, 3], [-1]]


def test_of_an_operation_that_runs_twice_the_changes_count_once() -> None:
    """One of its batch is refused, so each is run again in a part of its own."""

    async def use(committer: Committer, _told: list[list[int]]) -> None:
        futures = [committer.submit(one) for one in (noted(1), refused, noted(2))]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert (answers[0], answers[2]) == (1, 2)

    assert told_by(MemoryStore(), use) == [[1, 2]]


@pytest.mark.parametrize(
    ("fault", "make_room", "expected"),
    [(StorageFull("full"), True, [[1]]), (StorageFull("full"), False, []), (StorageFailed("EIO"), True, [])],
)
def test_nothing_is_told_of_what_was_not_committed(fault: Exception, make_room: bool, expected: list[Any]) -> None:
    async def use(committer: Committer, _told: list[list[int]]) -> None:
        await asyncio.gather(committer.submit(noted(1)), return_exceptions=True)

    assert told_by(Failing(fault), use, make_room) == expected


def test_what_nobody_waits_for_any_more_is_told_all_the_same() -> None:
    async def use(committer: Committer, _told: list[list[int]]) -> None:
        committer.submit(noted(1)).cancel()

    assert told_by(MemoryStore(), use) == [[1]]


def test_a_fault_of_who_is_told_keeps_neither_the_others_nor_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Sequence[Change]] = []

    def fault(_changes: Sequence[Change]) -> None:
        raise ZeroDivisionError

    async def main() -> int:
        stream = ChangeStream()
        stream.subscribe(fault)
        stream.subscribe(told.append)
        committer = Committer(MemoryStore(), lambda _error: None, lambda: False, stream.publish)
        committer.start()
        answer = await committer.submit(noted(1))
        await committer.stop()
        return answer

    assert asyncio.run(main()) == 1
    assert [[one.job for one in changes] for changes in told] == [[1]]
    assert "ZeroDivisionError" in caplog.text


def test_a_repeated_request_changes_only_what_it_makes(tmp_path: Path) -> None:
    """Of a batch that is half there, in one statement and over several."""
    store = sqlite_store(tmp_path)
    first = [JobSpec(command="true", id=f"a{number}") for number in range(0, 80, 2)]
    both = [JobSpec(command="true", id=f"a{number}") for number in range(80)]
    store.begin()
    Enqueue(first, Settings(), NOW)(store)
    made = Enqueue(both, Settings(), NOW)(store)
    again = Enqueue(both, Settings(), NOW)(store)
    store.commit()
    assert again.changes == []
    ids = {number: job_id for spec in both for number, job_id in store.resolve(str(spec.id))}
    assert [ids[one.job] for one in made.changes] == [f"a{number}" for number in range(1, 80, 2)]
    store.close()


IDS = [f"j{number}" for number in range(12)]
SETTINGS = Settings(max_retries=2, backoff_base=2.0)


class Followed(RuleBasedStateMachine):
    """Every operation that changes jobs, over a real store; who only listens to the stream knows all that is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="queuectl-changes-"))
        self.store = open_store(self.directory / "queue.db")
        self.now = NOW
        self.known: dict[int, After] = {}
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    def run(self, operation: Callable[[Store], Changed[Any]], *, refuse: bool = False) -> Any:
        self.store.begin()
        self.store.mark()
        try:
            done = operation(self.store)
        except ProtocolError:
            done, refuse = Changed(None, ()), True
        if refuse:
            self.store.undo()
            self.store.commit()
            return None
        self.store.keep()
        self.store.commit()
        for one in done.changes:
            self.follow(one)
        return done.result

    def follow(self, told: Change) -> None:
        known = self.known.get(told.job)
        assert told.before == (None if known is None else known.state)
        if told.after is None:
            assert told.why is Event.REMOVE
            assert told.before in ENDED
            del self.known[told.job]
            return
        assert told.after.state is TRANSITIONS[told.before, told.why]
        assert (told.after.run_at is not None) == (told.after.state in WAITING)
        assert (told.after.end is not None) == (told.after.state in ENDED)
        self.known[told.job] = told.after

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=5), delay=st.integers(0, 3), refuse=st.booleans())
    def enqueue(self, ids: list[str], delay: int, refuse: bool) -> None:
        specs = [JobSpec(command="true", id=job_id, delay=delay) for job_id in ids]
        self.run(Enqueue(specs, SETTINGS, self.now), refuse=refuse)

    @rule(count=st.integers(1, 3), later=st.integers(0, 3))
    def take(self, count: int, later: int) -> None:
        self.now += later
        given = self.run(lambda store: lease(store, ["w"] * count, SETTINGS, self.now))
        self.leases += given.leases

    @rule(outcome=st.sampled_from(Outcome), more=st.booleans(), refuse=st.booleans())
    def end(self, outcome: Outcome, more: bool, refuse: bool) -> None:
        if self.leases:
            held = self.leases.pop(0)
            result = AttemptResult(held.job, held.attempt, held.token, outcome, self.now, exit_code=3, error="x")
            ended = self.run(
                lambda store: finish(store, "w", result, SETTINGS, self.now, 0.5, more=more), refuse=refuse
            )
            if ended is not None:
                self.leases += ended[1].leases
            elif refuse:
                self.leases.insert(0, held)

    @rule()
    def lose(self) -> None:
        self.run(lambda store: settle_worker(store, "w", Outcome.LOST, {}, SETTINGS, self.now, 0.5))
        self.leases.clear()

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=3), tolerant=st.booleans())
    def cancel(self, ids: list[str], tolerant: bool) -> None:
        self.run(lambda store: change.cancel(store, ids, self.now, tolerant=tolerant))

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=3), tolerant=st.booleans())
    def retry(self, ids: list[str], tolerant: bool) -> None:
        self.run(lambda store: change.retry(store, ids, self.now, tolerant=tolerant))

    @rule()
    def retry_some(self) -> None:
        self.run(lambda store: change.retry_some_dead(store, 2, 0, self.now))

    @rule()
    def purge(self) -> None:
        self.run(lambda store: remove.purge_some(store, 2))

    @rule(state=st.sampled_from(ENDED))
    def sweep(self, state: JobState) -> None:
        self.run(lambda store: remove.remove_ended(store, store.in_state(state, 3), state, self.now))

    @invariant()
    def all_is_known(self) -> None:
        records = [self.store.get(number) for state in JobState for number in self.store.in_state(state, 100)]
        there = {record.number: record for record in records if record is not None}
        assert there.keys() == self.known.keys()
        for number, record in there.items():
            known = self.known[number]
            assert known.state is record.state
            assert known.run_at in (None, record.run_at)
            if known.end is not None:
                assert (known.end.id, known.end.state, known.end.exit_code, known.end.error) == (
                    record.id, record.state, record.exit_code, record.error,
                )  # fmt: skip


Followed.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
TestFollowed = Followed.TestCase
