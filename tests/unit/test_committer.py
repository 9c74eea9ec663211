"""Group commit: who is committed together, who fails alone, and what a failing disk does to a batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from queuectl_protocol.errors import ProtocolError
from queuectld.store.base import (
    Inserted,
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageUnavailable,
    Store,
)
from queuectld.store.committer import MAX_BATCH, Committer, Joint
from tests.store.jobs import NOW, new_job, sqlite_store
from tests.store.memory import MemoryStore

T = TypeVar("T")


class GatedStore(MemoryStore):
    """Tells what was done, and holds the first transaction until it is let go, so that a batch can collect."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.gate = threading.Event()
        self.faults: list[Exception | None] = []
        """Of the commits to come; none where there is no more."""

    def begin(self) -> None:
        self.steps.append("begin")
        super().begin()

    def commit(self) -> None:
        self.gate.wait(30)
        self.steps.append("commit")
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        super().commit()

    def rollback(self) -> None:
        self.steps.append("rollback")
        super().rollback()


class Outcomes:
    """What a committer told its owner."""

    def __init__(self) -> None:
        self.failures: list[StorageError] = []
        self.full = 0
        self.room: list[bool] = []
        """Whether there is room to make, each time in turn; none where there is no more."""

    def make_room(self) -> bool:
        self.full += 1
        return self.room.pop(0) if self.room else False


def setting(key: str, value: float) -> Callable[[Store], str]:
    def operation(store: Store) -> str:
        store.set_setting(key, value)
        return key

    return operation


def refused(store: Store) -> None:
    store.set_setting("refused", 1)
    raise ProtocolError("conflict", "no")


async def settled(*futures: asyncio.Future[Any]) -> list[Any]:
    """What each came to, results and refusals alike."""
    return await asyncio.gather(*futures, return_exceptions=True)


def run(store: Store, use: Callable[[Committer, Outcomes], Awaitable[T]]) -> tuple[T, Outcomes]:
    """What `use` returns, with a committer that is stopped in order afterwards."""

    async def main() -> tuple[T, Outcomes]:
        outcomes = Outcomes()
        committer = Committer(store, outcomes.failures.append, outcomes.make_room)
        committer.start()
        try:
            return await use(committer, outcomes), outcomes
        finally:
            if isinstance(store, GatedStore):
                store.gate.set()
            await committer.stop()
            await asyncio.sleep(0)

    return asyncio.run(asyncio.wait_for(main(), 30))


@asynccontextmanager
async def batch_behind(committer: Committer, store: GatedStore) -> AsyncIterator[asyncio.Future[Any]]:
    """Everything submitted within is one batch: the one that collects while the first commit is on its way."""
    began = threading.Event()
    first = committer.submit(lambda _store: began.set())
    assert await asyncio.to_thread(began.wait, 30)
    yield first
    store.gate.set()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else sqlite_store(tmp_path)
    yield opened
    opened.close()


def test_a_result_comes_after_its_commit(store: Store) -> None:
    reader = store.reader()

    async def use(committer: Committer, _outcomes: Outcomes) -> dict[str, int | float]:
        assert await committer.submit(setting("a", 1)) == "a"
        return reader.settings()

    assert run(store, use)[0] == {"a": 1}
    reader.close()


def test_a_refused_operation_fails_alone_and_leaves_nothing(store: Store) -> None:
    async def use(committer: Committer, _outcomes: Outcomes) -> list[object]:
        futures = [committer.submit(one) for one in (setting("a", 1), refused, setting("b", 2))]
        return await settled(*futures)

    (first, refusal, last), outcomes = run(store, use)
    assert (first, last) == ("a", "b")
    assert isinstance(refusal, ProtocolError)
    assert store.settings() == {"a": 1, "b": 2}
    assert (outcomes.failures, outcomes.full) == ([], 0)


def test_where_one_is_refused_the_others_run_again_on_what_was_there_before() -> None:
    store = GatedStore()
    seen: list[dict[str, float]] = []

    def look(store: Store) -> dict[str, float]:
        seen.append(store.settings())
        store.set_setting("looked", 1)
        return store.settings()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store):
            futures: list[asyncio.Future[Any]] = [committer.submit(one) for one in (setting("a", 1), look, refused)]
        return await settled(*futures)

    (_, found, refusal), _ = run(store, use)
    assert seen == [{"a": 1}, {"a": 1}], "once together with the one that is refused, and once more"
    assert found == store.settings() == {"a": 1, "looked": 1}
    assert refusal.kind == "conflict"


class Note(Joint[str]):
    """Puts a number into the store; all that are run at once are listed together in `runs`."""

    def __init__(self, number: int, runs: list[list[int]]) -> None:
        self.number = number
        self.runs = runs

    @classmethod
    def run_all(cls, store: Store, operations: Sequence[Note]) -> list[str]:
        operations[0].runs.append([one.number for one in operations])
        for one in operations:
            if one.number < 0:
                raise ProtocolError("conflict", "no")
            store.set_setting(f"s{one.number}", one.number)
        return [f"s{one.number}" for one in operations]


def test_operations_of_a_kind_that_follow_each_other_are_run_at_once() -> None:
    store, runs = GatedStore(), list[list[int]]()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store):
            futures = [committer.submit(Note(number, runs)) for number in range(3)]
            futures.append(committer.submit(setting("between", 1)))
            futures += [committer.submit(Note(number, runs)) for number in range(3, 5)]
        return await settled(*futures)

    assert run(store, use)[0] == ["s0", "s1", "s2", "between", "s3", "s4"]
    assert runs == [[0, 1, 2], [3, 4]]
    assert store.settings() == {"between": 1} | {f"s{number}": number for number in range(5)}


def test_one_of_them_that_is_refused_fails_alone() -> None:
    store, runs = GatedStore(), list[list[int]]()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store):
            futures = [committer.submit(Note(number, runs)) for number in (1, -1, 2)]
        return await settled(*futures)

    (first, refusal, last), _ = run(store, use)
    assert (first, last, refusal.kind) == ("s1", "s2", "conflict")
    assert runs == [[1, -1, 2], [1], [-1], [2]]
    assert store.settings() == {"s1": 1, "s2": 2}


def test_a_fault_of_an_operation_is_its_own_too(store: Store) -> None:
    def fault(store: Store) -> None:
        store.set_setting("half", 1)
        raise ZeroDivisionError

    async def use(committer: Committer, _outcomes: Outcomes) -> None:
        with pytest.raises(ZeroDivisionError):
            await committer.submit(fault)
        await committer.submit(setting("a", 1))

    run(store, use)
    assert store.settings() == {"a": 1}


def test_an_operation_sees_those_before_it_in_its_batch() -> None:
    store = GatedStore()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[object]:
        async with batch_behind(committer, store):
            committer.submit(setting("a", 1))
            seen = committer.submit(lambda store: store.settings())
        return [await seen]

    assert run(store, use)[0] == [{"a": 1}]


def test_what_waits_is_committed_once_and_resolved_in_its_order() -> None:
    store = GatedStore()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[int]:
        order: list[int] = []
        async with batch_behind(committer, store):
            futures = [committer.submit(setting(f"s{number}", number)) for number in range(50)]
            for future in futures:
                future.add_done_callback(lambda done: order.append(futures.index(done)))
        await asyncio.gather(*futures)
        return order

    assert run(store, use)[0] == list(range(50))
    assert store.steps == ["begin", "commit"] * 2


def test_a_batch_is_bounded() -> None:
    store = GatedStore()

    async def use(committer: Committer, _outcomes: Outcomes) -> None:
        async with batch_behind(committer, store):
            futures = [committer.submit(lambda _store: None) for _ in range(MAX_BATCH + 1)]
        await asyncio.gather(*futures)

    run(store, use)
    assert store.steps == ["begin", "commit"] * 3


def test_who_is_gone_does_not_take_the_others_along() -> None:
    store = GatedStore()

    async def use(committer: Committer, _outcomes: Outcomes) -> str:
        async with batch_behind(committer, store):
            committer.submit(setting("a", 1)).cancel()
            other = committer.submit(setting("b", 2))
        return await other

    assert run(store, use)[0] == "b"
    assert store.settings() == {"a": 1, "b": 2}, "what was asked for is done all the same"


def test_a_failed_commit_fails_its_whole_batch_and_all_that_follows() -> None:
    """Also who was refused by its own operation: that was decided on changes that may not be there."""
    store = GatedStore()
    store.faults = [None, StorageFailed("disk I/O error")]

    async def use(committer: Committer, outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store) as first:
            futures: list[asyncio.Future[Any]] = [
                committer.submit(setting("a", 1)),
                committer.submit(refused),
                committer.submit(setting("b", 2)),
            ]
        await first
        found = await settled(*futures)
        assert len(outcomes.failures) == 1, "told at once, not at the end"
        return found + await settled(committer.submit(setting("c", 3)))

    refusals, outcomes = run(store, use)
    assert [refusal.kind for refusal in refusals] == ["storage_failed"] * 4
    one_by_one = ["begin", "rollback", "begin", "commit", "rollback"]
    assert store.steps == ["begin", "commit", *one_by_one], "nothing is tried after it"
    assert [str(failure) for failure in outcomes.failures] == ["disk I/O error"]


def test_where_room_can_be_made_a_batch_is_tried_once_more() -> None:
    store = GatedStore()
    store.faults = [StorageFull("full"), None, StorageFull("full"), StorageFull("full")]
    store.gate.set()

    async def use(committer: Committer, outcomes: Outcomes) -> list[Any]:
        outcomes.room = [True, True]
        first = await settled(committer.submit(setting("a", 1)))
        return first + await settled(committer.submit(setting("b", 2)))

    (result, refusal), outcomes = run(store, use)
    assert result == "a"
    assert refusal.kind == "storage_full"
    assert store.settings() == {"a": 1}
    assert outcomes.full == 2
    assert store.steps == ["begin", "commit", "rollback", "begin", "commit"] + ["begin", "commit", "rollback"] * 2


def test_what_waits_behind_a_failed_commit_is_refused_too() -> None:
    store = GatedStore()
    store.faults = [StorageFailed("disk I/O error")]

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store) as first:
            waiting = committer.submit(setting("a", 1))
        return await settled(first, waiting)

    refusals, outcomes = run(store, use)
    assert [refusal.kind for refusal in refusals] == ["storage_failed"] * 2
    assert store.settings() == {}
    assert len({str(failure) for failure in outcomes.failures}) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (StorageBusy("another program keeps the database locked"), "busy"),
        (StorageUnavailable("the server does not answer"), "unavailable"),
    ],
)
def test_locked_out_it_refuses_all_that_wait_at_once_and_the_next_may_succeed(fault: StorageError, kind: str) -> None:
    """Batch by batch, each with its own patience, the last of many would wait for minutes."""

    class Locked(GatedStore):
        locked = True

        def begin(self) -> None:
            super().begin()
            if self.locked:
                self.rollback()
                self.gate.wait(30)
                raise fault

    store = Locked()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        first = committer.submit(setting("a", 1))
        futures = [committer.submit(setting(f"s{number}", number)) for number in range(3 * MAX_BATCH)]
        await asyncio.sleep(0)
        store.gate.set()
        refusals = await settled(first, *futures)
        store.locked = False
        return [*refusals, await committer.submit(setting("b", 2))]

    (*refusals, last), outcomes = run(store, use)
    assert {refusal.kind for refusal in refusals} == {kind}
    assert last == "b"
    assert store.settings() == {"b": 2}
    assert store.steps.count("begin") == 2
    assert (outcomes.failures, outcomes.full) == ([], 0)


def test_a_full_disk_refuses_one_batch_and_the_next_may_succeed() -> None:
    store = GatedStore()
    store.faults = [None, StorageFull("no room")]

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store):
            futures = [committer.submit(setting("a", 1)), committer.submit(setting("b", 2))]
        found = await settled(*futures)
        return [*found, await committer.submit(setting("c", 3))]

    (first, second, third), outcomes = run(store, use)
    assert (first.kind, second.kind, third) == ("storage_full", "storage_full", "c")
    assert store.settings() == {"c": 3}
    assert (outcomes.full, outcomes.failures) == (1, [])


@pytest.mark.parametrize("at", ["begin", "operation"])
def test_a_disk_that_fails_before_the_commit_fails_the_batch(at: str) -> None:
    class Failing(GatedStore):
        def begin(self) -> None:
            super().begin()
            if at == "begin" and len(self.steps) > 1:
                raise StorageFailed("disk I/O error")

    store = Failing()

    def operation(store: Store) -> None:
        store.set_setting("half", 1)
        if at == "operation":
            raise StorageFailed("disk I/O error")

    async def use(committer: Committer, _outcomes: Outcomes) -> list[Any]:
        async with batch_behind(committer, store):
            futures: list[asyncio.Future[Any]] = [committer.submit(setting("a", 1)), committer.submit(operation)]
        return await settled(*futures)

    refusals, outcomes = run(store, use)
    assert [refusal.kind for refusal in refusals] == ["storage_failed"] * 2
    assert store.settings() == {}
    assert len(outcomes.failures) == 1


def test_a_fault_of_the_store_that_has_no_name_is_a_failure_too_and_no_silence() -> None:
    """Whatever ends the thread must end the daemon: a hanging one serves nobody, and nobody restarts it."""
    store = GatedStore()
    store.faults = [MemoryError()]
    store.gate.set()

    async def use(committer: Committer, outcomes: Outcomes) -> tuple[str, int]:
        with pytest.raises(ProtocolError) as caught:
            await committer.submit(setting("a", 1))
        with pytest.raises(ProtocolError):
            await committer.submit(setting("b", 1))
        return caught.value.kind, len(outcomes.failures)

    assert run(store, use)[0] == ("storage_failed", 1)


def test_stop_finishes_what_was_submitted() -> None:
    store = GatedStore()
    store.gate.set()

    async def use(committer: Committer, _outcomes: Outcomes) -> list[str]:
        futures = [committer.submit(setting(f"s{number}", number)) for number in range(MAX_BATCH * 2)]
        await committer.stop()
        await committer.stop()
        return await asyncio.gather(*futures)

    assert len(run(store, use)[0]) == MAX_BATCH * 2
    assert len(store.settings()) == MAX_BATCH * 2


def test_many_threads_of_requests_lose_nothing(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)

    def insert(number: int) -> Callable[[Store], Inserted]:
        return lambda store: store.insert([new_job(f"job{number}")], NOW)

    async def use(committer: Committer, _outcomes: Outcomes) -> None:
        await asyncio.gather(*(committer.submit(insert(number)) for number in range(2000)))

    run(store, use)
    assert sum(store.counts().values()) == 2000
    store.close()
