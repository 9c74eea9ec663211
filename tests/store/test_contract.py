"""What every store promises (base.py), tried on the model and on SQLite."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import UNSET

from queuectl_protocol.jobs import ENDED, WAITING, JobState, Outcome
from queuectld.store.base import (
    AlreadyThere,
    Deleted,
    GivenUp,
    Maintenance,
    NewJob,
    Reader,
    ReadyJob,
    StorageError,
    Store,
    WorkerRecord,
)
from queuectld.store.sqlite import SqliteReader, SqliteStore
from queuectld.store.sqlite.maintenance import SqliteMaintenance
from tests.store.jobs import NOW, bring, end, new_job, next_due, next_ready, put
from tests.store.memory import MemoryMaintenance, MemoryReader, MemoryStore

STORES: list[type[Store]] = [SqliteStore, MemoryStore]  # mypy holds them against the interface here
READERS: list[type[Reader]] = [SqliteReader, MemoryReader]
MAINTENANCE: list[type[Maintenance]] = [SqliteMaintenance, MemoryMaintenance]


def lease(store: Store, now: float = NOW) -> str | None:
    """Start the next job; its id."""
    ready = next_ready(store, now)
    if ready is None:
        return None
    store.start_attempt(ready.number, ready.last_attempt + 1, "token", "w1", now)
    return ready.id


def ids_in_order(store: Store, now: float = NOW) -> list[str]:
    """The ids as they would be leased, without any being leased in the end."""
    store.begin()
    found = list(iter(lambda: lease(store, now) or "", ""))
    store.rollback()
    return found


class TestInsert:
    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert store.counts() == dict.fromkeys(JobState, 0)
        assert next_ready(store, NOW) is None
        assert next_due(store, NOW) is None
        assert store.settings() == {}
        assert store.desired_workers() == 0
        assert store.workers() == []
        assert store.running() == []
        assert store.last_seen_time() == 0.0
        assert store.jobs(None, None, 10, None) == ([], None)

    def test_all_that_was_given_comes_back(self, store: Store) -> None:
        given = new_job(
            "a.b_c-1",
            queue="mail",
            priority=-7,
            run_at=NOW + 0.123456,
            max_retries=9,
            timeout=1.5,
            label="für Łukasz \N{SNOWMAN}\n\x1b[31m",
            command=None,
            argv=["printf", "%s\n", 'quo"te', "\N{SNOWMAN}", ""],
            cwd="/tmp/a b",
            env={"B": "2", "A": "1=1\n"},
            exact_env=True,
        )
        (number,) = put(store, given, now=NOW)
        job = store.job(number, env=True)
        assert job is not None
        same = ("id", "queue", "priority", "max_retries", "timeout", "label", "argv", "cwd", "env", "exact_env")
        assert [getattr(job, name) for name in same] == [getattr(given, name) for name in same]
        assert job.command is UNSET
        assert job.state is JobState.PENDING
        assert job.run_at == datetime.fromtimestamp(NOW + 0.123456, UTC)
        assert job.created_at == job.updated_at == datetime.fromtimestamp(NOW, UTC)
        assert (job.attempts, job.exit_code, job.error, job.cancelling, job.history) == (0, None, None, False, [])
        assert store.runnable(number) == ReadyJob(
            number=number,
            id=given.id,
            queue=given.queue,
            attempts=0,
            max_retries=9,
            timeout=1.5,
            last_attempt=0,
            command=None,
            argv=given.argv,
            cwd=given.cwd,
            env=given.env,
            exact_env=True,
        )

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 9, 31, 32, 33, 43, 107])
    def test_however_many_come_at_once_each_is_itself_and_they_keep_their_order(self, store: Store, count: int) -> None:
        put(store, new_job("j0", priority=0))  # is there already
        jobs = [new_job(f"j{n}", priority=n, command=f"echo {n}", env={"N": str(n)}) for n in range(1, count)]
        numbers = put(store, new_job("j0", priority=0), *jobs)
        assert numbers == sorted(numbers)
        found = [store.job(number, env=True) for number in numbers]
        assert [(job.id, job.priority) for job in found if job] == [(f"j{n}", n) for n in range(count)]
        assert [(job.command, job.env) for job in found[1:] if job] == [(job.command, job.env) for job in jobs]
        assert store.counts()[JobState.PENDING] == count

    @pytest.mark.parametrize("env", [None, {}, {"A": "1"}])
    def test_no_environment_is_not_an_empty_one(self, store: Store, env: dict[str, str] | None) -> None:
        (number,) = put(store, new_job("a", env=env))
        ready = next_ready(store, NOW)
        assert ready is not None
        assert ready.env == env
        job = store.job(number, env=True)
        assert job is not None
        assert job.env == (env or {})

    def test_the_environment_is_shown_only_where_asked_for(self, store: Store) -> None:
        (number,) = put(store, new_job("a", env={"SECRET": "x"}))
        job = store.job(number)
        assert job is not None
        assert job.env is UNSET
        assert "SECRET" not in repr(store.jobs(None, None, 10, None))

    def test_numbers_follow_the_order_given(self, store: Store) -> None:
        numbers = put(store, *(new_job(f"j{i}") for i in (3, 1, 2)))
        assert numbers == sorted(numbers)
        assert numbers[0] > 0

    def test_the_same_again_is_passed_over(self, store: Store) -> None:
        first = put(store, new_job("a"), new_job("b"))
        again = put(store, new_job("b"), new_job("c"), new_job("a"), now=NOW + 5)
        assert again[0] == first[1]
        assert again[2] == first[0]
        assert store.counts()[JobState.PENDING] == 3
        job = store.job(first[0])
        assert job is not None
        assert job.created_at == datetime.fromtimestamp(NOW, UTC)

    def test_the_same_again_in_whatever_state_it_is(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, JobState.DEAD)
        assert put(store, new_job("a")) == [number]
        assert store.counts()[JobState.DEAD] == 1
        assert store.counts()[JobState.PENDING] == 0

    def test_another_content_is_told(self, store: Store) -> None:
        put(store, new_job("a"), new_job("b"))
        store.begin()
        store.mark()
        changed = [new_job("c"), new_job("b", priority=1), new_job("a"), new_job("b", priority=2)]
        assert store.insert(changed, NOW).contradicted == {"b": new_job("b").digest}
        store.undo()
        store.commit()
        assert [job.id for job in store.jobs(None, None, 10, None)[0]] == ["b", "a"]
        assert store.counts()[JobState.PENDING] == 2

    def test_twice_in_one_call(self, store: Store) -> None:
        put(store, new_job("a"), new_job("a"))
        assert store.counts()[JobState.PENDING] == 1
        store.begin()
        inserted = store.insert([new_job("b"), new_job("b", label="other")], NOW)
        assert inserted.contradicted == {"b": new_job("b").digest}
        store.rollback()
        assert store.resolve("b") == []

    def test_none_at_all(self, store: Store) -> None:
        assert put(store) == []
        assert store.counts()[JobState.PENDING] == 0


class TestOrder:
    def test_priority_then_time_then_number(self, store: Store) -> None:
        put(
            store,
            new_job("late", run_at=NOW - 1),
            new_job("low", priority=-1, run_at=NOW - 100),
            new_job("first", run_at=NOW - 2),
            new_job("second", run_at=NOW - 2),
            new_job("high", priority=5),
            new_job("higher-but-later", priority=6, run_at=NOW + 1),
        )
        assert ids_in_order(store) == ["high", "first", "second", "late", "low"]
        assert ids_in_order(store, NOW + 1)[0] == "higher-but-later"

    def test_not_before_its_time(self, store: Store) -> None:
        put(store, new_job("a", run_at=NOW + 10))
        assert next_ready(store, NOW + 9.999) is None
        ready = next_ready(store, NOW + 10)
        assert ready is not None
        assert ready.id == "a"
        assert next_ready(store, NOW + 9) is None  # time may go back

    def test_a_failed_job_waits_for_its_retry(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        store.begin()
        store.start_attempt(number, 1, "t", "w", NOW)
        end(store, number, 1, JobState.FAILED, outcome=Outcome.FAILED, run_at=NOW + 4)
        store.commit()
        assert next_ready(store, NOW) is None
        assert next_due(store, NOW) == NOW + 4
        ready = next_ready(store, NOW + 4)
        assert ready is not None
        assert (ready.attempts, ready.last_attempt) == (1, 1)

    @pytest.mark.parametrize("state", [JobState.PROCESSING, *ENDED])
    def test_only_waiting_jobs_are_taken(self, store: Store, state: JobState) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, state)
        assert next_ready(store, NOW + 1000) is None
        assert next_due(store, 0.0) is None
        assert store.runnable(number) is not None

    def test_the_next_due_time_is_the_earliest_of_all_priorities(self, store: Store) -> None:
        put(
            store,
            new_job("a", priority=3, run_at=NOW + 30),
            new_job("b", priority=2, run_at=NOW - 5),
            new_job("c", priority=2, run_at=NOW + 10),
            new_job("d", priority=1, run_at=NOW + 20),
            new_job("e", priority=0, run_at=NOW),
        )
        assert next_due(store, NOW - 10) == NOW - 5
        assert next_due(store, NOW - 5) is None, "one may start"
        store.begin()
        for job_id, at in (("b", NOW - 5), ("e", NOW), ("c", NOW + 10), ("d", NOW + 20), ("a", NOW + 30)):
            assert next_due(store, at - 1) == at
            assert lease(store, at) == job_id
        assert next_due(store, NOW + 30) is None
        store.rollback()

    @pytest.fixture
    def looked(self, store: Store) -> Store:
        """Begun, with what a store may remember of a look: nothing above `low` is ready before NOW + 50."""
        put(store, new_job("dead", priority=9), new_job("busy", priority=8))
        dead, busy = (store.resolve(job_id)[0][0] for job_id in ("dead", "busy"))
        bring(store, dead, JobState.DEAD)
        bring(store, busy, JobState.PROCESSING)
        put(store, new_job("delayed", priority=5, run_at=NOW + 50), new_job("low"))
        store.begin()
        ready = next_ready(store, NOW)
        assert ready is not None
        assert ready.id == "low"
        return store

    def test_seen_again_after_an_insert(self, looked: Store) -> None:
        looked.insert([new_job("new", priority=6)], NOW)
        assert lease(looked) == "new"
        assert lease(looked) == "low"
        looked.rollback()

    def test_seen_again_after_an_insert_that_is_delayed_less(self, looked: Store) -> None:
        looked.insert([new_job("new", priority=6, run_at=NOW + 20)], NOW)
        assert lease(looked, NOW + 19) == "low"
        assert lease(looked, NOW + 20) == "new"
        looked.rollback()

    def test_seen_again_when_its_time_comes(self, looked: Store) -> None:
        assert lease(looked, NOW + 49) == "low"
        assert lease(looked, NOW + 50) == "delayed"
        looked.rollback()

    def test_seen_again_after_a_retry(self, looked: Store) -> None:
        (number, _), *_ = looked.resolve("dead")
        looked.update(number, state=JobState.PENDING, attempts=0, run_at=NOW, cancelling=False, now=NOW)
        assert lease(looked) == "dead"
        looked.rollback()

    def test_seen_again_after_an_interruption(self, looked: Store) -> None:
        (number, _), *_ = looked.resolve("busy")
        end(looked, number, 1, JobState.PENDING, outcome=Outcome.INTERRUPTED, attempts=0)
        assert lease(looked) == "busy"
        looked.rollback()

    def test_seen_again_after_a_failure(self, looked: Store) -> None:
        (number, _), *_ = looked.resolve("busy")
        end(looked, number, 1, JobState.FAILED, outcome=Outcome.FAILED, run_at=NOW + 2)
        assert lease(looked, NOW + 1) == "low"
        assert lease(looked, NOW + 2) == "busy"
        looked.rollback()

    def test_seen_again_after_a_shift(self, looked: Store) -> None:
        looked.shift_waiting(-50.0, NOW)
        assert lease(looked) == "delayed"
        looked.rollback()

    def test_not_seen_too_early_after_a_shift(self, looked: Store) -> None:
        looked.shift_waiting(1000.0, NOW)
        assert lease(looked, NOW + 999) is None
        looked.rollback()

    @pytest.mark.parametrize("by", ["undo", "rollback"])
    def test_an_undone_lease_is_ready_again(self, looked: Store, by: str) -> None:
        looked.rollback()
        put(looked, new_job("high", priority=7))
        looked.begin()
        looked.mark()
        assert lease(looked) == "high"
        assert lease(looked) == "low"
        assert lease(looked) is None
        if by == "undo":
            looked.undo()
        else:
            looked.rollback()
            looked.begin()
        assert lease(looked) == "high"
        assert lease(looked) == "low"
        looked.rollback()


class TestResolve:
    @pytest.fixture
    def numbers(self, store: Store) -> dict[str, int]:
        names = ["abc", "abd", "ab", "abcd", "b", "Zeta", "ab-1", "ab.1", "ab_1", "abz9"]
        return dict(zip(names, put(store, *map(new_job, names)), strict=True))

    def test_a_whole_id_wins_over_longer_ones(self, store: Store, numbers: dict[str, int]) -> None:
        assert store.resolve("ab") == [(numbers["ab"], "ab")]
        assert store.resolve("abc") == [(numbers["abc"], "abc")]

    def test_a_unique_prefix(self, store: Store, numbers: dict[str, int]) -> None:
        assert store.resolve("Z") == [(numbers["Zeta"], "Zeta")]
        assert store.resolve("abz") == [(numbers["abz9"], "abz9")]

    def test_an_ambiguous_prefix_gives_the_first_three(self, store: Store, numbers: dict[str, int]) -> None:
        assert store.resolve("a") == [(numbers[name], name) for name in ("ab", "ab-1", "ab.1")]

    @pytest.mark.parametrize("ref", ["x", "abcde", "z", "%", "a%", "ab*", "\0", "\N{SNOWMAN}", "AB", "a\x7f"])
    def test_nothing(self, store: Store, numbers: dict[str, int], ref: str) -> None:
        assert store.resolve(ref) == []


class TestReads:
    def test_unknown_jobs(self, store: Store) -> None:
        assert store.get(7) is None
        assert store.job(7) is None
        assert store.attempts(7) == []
        assert store.runnable(7) is None
        assert store.running_attempt(7) is None

    @pytest.mark.parametrize("state", [None, *JobState])
    @pytest.mark.parametrize("queue", [None, "default", "other", "nobody"])
    def test_pages(self, store: Store, state: JobState | None, queue: str | None) -> None:
        expected = []
        for i, each in enumerate([*JobState] * 3):
            of = "other" if i % 4 == 0 else "default"
            (number,) = put(store, new_job(f"j{i}", queue=of))
            bring(store, number, each)
            if state in (None, each) and queue in (None, of):
                expected.append(f"j{i}")
        expected.reverse()
        for size in (1, 2, len(expected), len(expected) + 1):
            found: list[str] = []
            after = None
            for _ in range(30):
                page, after = store.jobs(state, queue, max(size, 1), after)
                found += [job.id for job in page]
                assert all(job.history is UNSET and job.env is UNSET for job in page)
                if after is None:
                    break
                assert page
            assert found == expected

    def test_a_page_goes_on_after_inserts_and_deletes(self, store: Store) -> None:
        numbers = put(store, *(new_job(f"j{i}") for i in range(4)))
        page, after = store.jobs(None, None, 2, None)
        assert [job.id for job in page] == ["j3", "j2"]
        put(store, new_job("new"))
        store.begin()
        store.delete([numbers[2], numbers[1]])
        store.commit()
        page, after = store.jobs(None, None, 2, after)
        assert [job.id for job in page] == ["j0"]
        assert after is None

    def test_a_huge_cursor_is_the_first_page(self, store: Store) -> None:
        put(store, new_job("a"))
        assert len(store.jobs(None, None, 1, 2**70)[0]) == 1

    @pytest.mark.parametrize("state", list(JobState))
    def test_in_state(self, store: Store, state: JobState) -> None:
        numbers = put(store, *(new_job(f"j{i}") for i in range(5)))
        if state is JobState.PENDING:
            bring(store, numbers[1], JobState.CANCELLED)
            expected = [numbers[i] for i in (0, 2, 3, 4)]
        else:
            expected = [numbers[i] for i in (0, 2, 4)]
            for number in expected:
                bring(store, number, state)
        assert store.in_state(state, 10) == expected
        assert store.in_state(state, 2) == expected[:2]
        assert store.in_state(state, 10, after=expected[0]) == expected[1:]
        assert store.in_state(state, 10, after=expected[-1]) == []


class TestAttempts:
    def test_start(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        store.begin()
        store.start_attempt(number, 1, "secret", "w7", NOW + 1)
        store.commit()
        record = store.get(number)
        assert record is not None
        assert (record.state, record.attempts, record.exit_code, record.error) == (JobState.PROCESSING, 1, None, None)
        running = store.running_attempt(number)
        assert running is not None
        assert (running.number, running.token, running.worker, running.started_at) == (1, "secret", "w7", NOW + 1)
        assert running.job == record
        assert store.running() == [running]
        (attempt,) = store.attempts(number)
        assert (attempt.number, attempt.worker, attempt.outcome, attempt.ended_at) == (1, "w7", None, None)
        job = store.job(number)
        assert job is not None
        assert job.history == [attempt]
        assert job.updated_at == datetime.fromtimestamp(NOW + 1, UTC)

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_end(self, store: Store, outcome: Outcome) -> None:
        (number,) = put(store, new_job("a"))
        store.begin()
        store.start_attempt(number, 1, "t", "w", NOW)
        store.end_attempt(
            number,
            1,
            outcome=outcome,
            exit_code=137,
            signal=9,
            error="killed \N{SNOWMAN}",
            state=JobState.FAILED,
            attempts=1,
            run_at=NOW + 8,
            ended_at=NOW + 2.5,
            now=NOW + 3,
        )
        store.commit()
        record = store.get(number)
        assert record is not None
        assert (record.state, record.attempts, record.run_at) == (JobState.FAILED, 1, NOW + 8)
        assert (record.exit_code, record.error) == (137, "killed \N{SNOWMAN}")
        (attempt,) = store.attempts(number)
        assert (attempt.outcome, attempt.exit_code, attempt.signal, attempt.error) == (
            outcome,
            137,
            9,
            "killed \N{SNOWMAN}",
        )
        assert attempt.ended_at == datetime.fromtimestamp(NOW + 2.5, UTC)
        assert store.running_attempt(number) is None
        assert store.running() == []
        job = store.job(number)
        assert job is not None
        assert job.updated_at == datetime.fromtimestamp(NOW + 3, UTC)

    def test_the_end_clears_a_cancel_and_an_old_error(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, JobState.FAILED)
        store.begin()
        store.start_attempt(number, 2, "t2", "w", NOW)
        store.update(number, state=JobState.PROCESSING, attempts=2, run_at=NOW, cancelling=True, now=NOW)
        record = store.get(number)
        assert record is not None
        assert record.cancelling
        assert (record.exit_code, record.error) == (1, "it failed")
        end(store, number, 2)
        store.commit()
        record = store.get(number)
        assert record is not None
        assert not record.cancelling
        assert (record.exit_code, record.error) == (0, None)

    def test_history_of_several(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        for attempt in (1, 2, 3):
            store.begin()
            ready = next_ready(store, NOW)
            assert ready is not None
            assert ready.last_attempt == attempt - 1
            store.start_attempt(number, attempt, f"t{attempt}", "w", NOW + attempt)
            end(store, number, attempt, JobState.FAILED, outcome=Outcome.LOST, attempts=attempt)
            store.commit()
        assert [attempt.number for attempt in store.attempts(number)] == [1, 2, 3]
        assert [attempt.number for attempt in store.attempts(number, 2)] == [2, 3]
        assert [attempt.number for attempt in store.attempts(number, 2, before=3)] == [1, 2]
        assert [attempt.number for attempt in store.attempts(number, before=1)] == []
        job = store.job(number, attempts_before=3)
        assert job is not None
        assert isinstance(job.history, list)
        assert [attempt.number for attempt in job.history] == [1, 2]
        assert job.older_attempts is UNSET

    def test_running_ones_come_by_job(self, store: Store) -> None:
        numbers = put(store, *(new_job(f"j{i}") for i in range(4)))
        store.begin()
        for number in reversed(numbers):
            store.start_attempt(number, 1, f"t{number}", "w", NOW)
        end(store, numbers[1], 1)
        store.commit()
        assert [running.job.number for running in store.running()] == [numbers[0], numbers[2], numbers[3]]

    @pytest.mark.parametrize("state", [JobState.PROCESSING, *ENDED])
    def test_no_start_unless_waiting(self, store: Store, state: JobState) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, state)
        store.begin()
        with pytest.raises(LookupError):
            store.start_attempt(number, 2, "t", "w", NOW)
        with pytest.raises(LookupError):
            store.start_attempt(number + 1, 1, "t", "w", NOW)
        store.rollback()

    @pytest.mark.parametrize("state", [*WAITING, *ENDED])
    def test_no_end_unless_running(self, store: Store, state: JobState) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, state)
        store.begin()
        with pytest.raises(LookupError):
            end(store, number, 1)
        with pytest.raises(LookupError):
            end(store, number + 1, 1)
        store.rollback()
        assert store.counts()[state] == 1

    def test_no_end_of_another_attempt(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, JobState.FAILED)
        store.begin()
        store.start_attempt(number, 2, "t", "w", NOW)
        store.mark()
        with pytest.raises(LookupError):
            end(store, number, 1)
        store.undo()
        end(store, number, 2)
        store.commit()
        assert store.counts()[JobState.COMPLETED] == 1


class TestUpdate:
    def test_cancel_and_retry(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        bring(store, number, JobState.DEAD)
        store.begin()
        store.update(number, state=JobState.PENDING, attempts=0, run_at=NOW + 7, cancelling=False, now=NOW + 7)
        store.commit()
        record = store.get(number)
        assert record is not None
        assert (record.state, record.attempts, record.run_at) == (JobState.PENDING, 0, NOW + 7)
        ready = next_ready(store, NOW + 7)
        assert ready is not None
        assert (ready.attempts, ready.last_attempt) == (0, 1)  # its history stays
        job = store.job(number)
        assert job is not None
        assert job.updated_at == datetime.fromtimestamp(NOW + 7, UTC)
        assert len(store.attempts(number)) == 1

    def test_an_unknown_job(self, store: Store) -> None:
        store.begin()
        with pytest.raises(LookupError):
            store.update(1, state=JobState.PENDING, attempts=0, run_at=NOW, cancelling=False, now=NOW)
        store.rollback()


class TestCounts:
    def test_every_state(self, store: Store) -> None:
        for i, state in enumerate(JobState):
            for k in range(i + 1):
                (number,) = put(store, new_job(f"{state}{k}"))
                bring(store, number, state)
        expected = {state: i + 1 for i, state in enumerate(JobState)}
        assert store.counts() == expected
        reader = store.reader()
        assert reader.counts() == expected
        reader.close()

    def test_the_result_is_the_callers(self, store: Store) -> None:
        store.counts()[JobState.DEAD] = 99
        assert store.counts()[JobState.DEAD] == 0


class TestDelete:
    def test_a_job_with_all_of_it(self, store: Store) -> None:
        a, b = put(store, new_job("a"), new_job("b"))
        bring(store, a, JobState.DEAD)
        store.begin()
        assert store.delete([b, 999, a, a]) == [Deleted(b, 0), Deleted(a, 1)]
        store.commit()
        assert store.get(a) is None
        assert store.attempts(a) == []
        assert store.resolve("a") == []
        assert store.counts() == dict.fromkeys(JobState, 0)

    def test_numbers_are_never_used_again(self, store: Store) -> None:
        numbers = put(store, new_job("a"), new_job("b"))
        store.begin()
        store.delete(numbers)
        store.commit()
        (again,) = put(store, new_job("b"))
        assert again > max(numbers)

    def test_environments_go_with_their_last_job(self, store: Store) -> None:
        shared = {"A": "1", "B": "2"}
        a, b, c = put(store, new_job("a", env=shared), new_job("b", env=dict(reversed(shared.items()))), new_job("c"))
        store.begin()
        store.delete([a])
        store.commit()
        ready = store.runnable(b)
        assert ready is not None
        assert ready.env == shared
        store.begin()
        store.delete([b, c])
        store.commit()
        (again,) = put(store, new_job("a", env=shared))
        ready = store.runnable(again)
        assert ready is not None
        assert ready.env == shared


class TestTransaction:
    def test_a_part_is_undone_alone(self, store: Store) -> None:
        (kept,) = put(store, new_job("before"))
        store.begin()
        store.mark()
        store.insert([new_job("one")], NOW + 1)
        store.keep()
        store.mark()
        store.insert([new_job("two", env={"A": "1"}), new_job("three")], NOW + 2)
        store.start_attempt(kept, 1, "t", "w", NOW + 3)
        store.set_setting("backoff_base", 3.0)
        store.set_desired_workers(4)
        store.add_worker(WorkerRecord("w1", "boot", 1, 2, NOW))
        store.delete([store.resolve("one")[0][0]])
        assert store.counts() == {**dict.fromkeys(JobState, 0), JobState.PENDING: 2, JobState.PROCESSING: 1}
        store.undo()
        assert store.counts()[JobState.PENDING] == 2
        assert store.last_seen_time() == NOW + 1
        store.mark()
        store.insert([new_job("four")], NOW + 1)
        store.keep()
        store.commit()
        assert [job.id for job in store.jobs(None, None, 10, None)[0]] == ["four", "one", "before"]
        assert store.counts() == {**dict.fromkeys(JobState, 0), JobState.PENDING: 3}
        assert (store.settings(), store.desired_workers(), store.workers(), store.running()) == ({}, 0, [], [])

    def test_rollback_undoes_all(self, store: Store) -> None:
        (number,) = put(store, new_job("a"))
        store.begin()
        store.mark()
        store.insert([new_job("b")], NOW + 9)
        store.keep()
        store.mark()
        store.start_attempt(number, 1, "t", "w", NOW + 9)
        store.rollback()
        assert store.counts() == {**dict.fromkeys(JobState, 0), JobState.PENDING: 1}
        assert store.last_seen_time() == NOW
        assert store.running() == []
        store.begin()
        store.commit()
        assert store.counts()[JobState.PENDING] == 1

    @pytest.mark.parametrize(
        "write",
        [
            lambda store: store.insert([new_job("a")], NOW),
            lambda store: store.insert([new_job("a", env={"A": "1"})], NOW),
            lambda store: store.set_setting("a", 1),
            lambda store: store.mark(),
            lambda store: store.commit(),
            lambda store: store.shift_waiting(1, NOW),
            lambda store: store.start_attempt(1, 1, "t", "w", NOW),
        ],
    )
    def test_no_write_outside_of_a_transaction(self, store: Store, write: Callable[[Store], object]) -> None:
        with pytest.raises(RuntimeError, match="outside of a transaction"):
            write(store)
        assert store.counts()[JobState.PENDING] == 0
        assert store.settings() == {}

    def test_readers_see_what_is_committed(self, store: Store) -> None:
        put(store, new_job("a"))
        reader = store.reader()
        store.begin()
        store.insert([new_job("b")], NOW)
        store.set_setting("max_retries", 5)
        store.set_desired_workers(2)
        assert store.settings() == {"max_retries": 5}
        assert len(store.jobs(None, None, 10, None)[0]) == 2
        assert len(reader.jobs(None, None, 10, None)[0]) == 1
        assert reader.counts()[JobState.PENDING] == 1
        assert (reader.settings(), reader.desired_workers(), reader.resolve("b")) == ({}, 0, [])
        store.commit()
        assert reader.counts()[JobState.PENDING] == 2
        assert (reader.settings(), reader.desired_workers()) == ({"max_retries": 5}, 2)
        assert [job_id for _, job_id in reader.resolve("b")] == ["b"]
        reader.close()


class TestSettingsAndWorkers:
    def test_types_stay(self, store: Store) -> None:
        store.begin()
        store.set_setting("whole", 3)
        store.set_setting("real", 2.0)
        store.set_setting("changed", 1)
        store.set_setting("changed", 0.5)
        store.set_setting("gone", 1)
        store.unset_setting("gone")
        store.unset_setting("never there")
        store.commit()
        found = store.settings()
        assert found == {"whole": 3, "real": 2.0, "changed": 0.5}
        assert {key: type(value) for key, value in found.items()} == {"whole": int, "real": float, "changed": float}

    def test_desired_workers(self, store: Store) -> None:
        store.begin()
        store.set_desired_workers(8)
        store.commit()
        assert store.desired_workers() == 8

    def test_identity(self, store: Store) -> None:
        assert re.fullmatch("[0-9a-f]{32}", store.identity())
        reader = store.reader()
        assert reader.identity() == store.identity()
        reader.close()

    def test_workers(self, store: Store) -> None:
        old = WorkerRecord("w9", "boot", 10, 2**40, NOW)
        new = WorkerRecord("w1", "boot", 11, 2, NOW + 1)
        store.begin()
        store.add_worker(new)
        store.add_worker(old)
        store.commit()
        assert store.workers() == [old, new]
        again = WorkerRecord("w9", "boot2", 12, 3, NOW + 2)
        store.begin()
        store.add_worker(again)
        store.remove_worker("w1")
        store.remove_worker("never there")
        store.commit()
        assert store.workers() == [again]


class TestTime:
    def test_the_latest_is_kept(self, store: Store) -> None:
        (number,) = put(store, new_job("a"), now=NOW)
        put(store, new_job("b"), now=NOW - 10)
        assert store.last_seen_time() == NOW
        store.begin()
        store.start_attempt(number, 1, "t", "w", NOW + 1)
        assert store.last_seen_time() == NOW + 1
        end(store, number, 1, now=NOW + 2)
        assert store.last_seen_time() == NOW + 2
        store.update(number, state=JobState.PENDING, attempts=0, run_at=NOW, cancelling=False, now=NOW + 3)
        store.commit()
        assert store.last_seen_time() == NOW + 3

    def test_shift_moves_what_waits(self, store: Store) -> None:
        states = list(JobState)
        numbers = put(store, *(new_job(f"{state}", run_at=NOW) for state in states))
        for number, state in zip(numbers, states, strict=True):
            bring(store, number, state)
        store.begin()
        store.shift_waiting(-3600.0, NOW - 3600)
        store.commit()
        moved = [record.state for number in numbers if (record := store.get(number)) and record.run_at == NOW - 3600]
        assert moved == [JobState.PENDING, JobState.FAILED]
        assert store.last_seen_time() == NOW - 3600
        store.begin()
        store.shift_waiting(5.0, NOW + 5)
        store.commit()
        assert next_due(store, NOW - 3600) == NOW - 3595


class TestCopies:
    def test_a_backup_is_written(self, store: Store, tmp_path: Path) -> None:
        put(store, new_job("a"))
        target = tmp_path / "copy"
        assert store.maintenance.backup(target) == target.stat().st_size > 3

    def test_a_backup_replaces_nothing(self, store: Store, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        target.write_text("precious")
        with pytest.raises(AlreadyThere):
            store.maintenance.backup(target)
        assert target.read_text() == "precious"

    def test_a_backup_that_cannot_be_written(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            store.maintenance.backup(tmp_path / "no such directory" / "copy")

    def test_what_is_long_can_be_given_up(self, store: Store, tmp_path: Path) -> None:
        put(store, *(new_job(f"j{i}", command="x" * 50_000) for i in range(50)))
        with pytest.raises(GivenUp):
            store.maintenance.backup(tmp_path / "copy", give_up=lambda: True)
        assert [path for path in tmp_path.iterdir() if "copy" in path.name] == []
        with pytest.raises(GivenUp):
            store.maintenance.integrity_check(give_up=lambda: True)
        assert store.maintenance.integrity_check() == [], "it is of use all the same"

    def test_a_whole_store_has_no_findings(self, store: Store) -> None:
        put(store, *(new_job(f"j{i}", env={"A": str(i)}) for i in range(50)))
        assert store.maintenance.integrity_check() == []


def test_the_helpers_make_equal_jobs_equal() -> None:
    assert new_job("a") == new_job("a")
    assert isinstance(new_job("a"), NewJob)
    assert new_job("a").digest != new_job("a", label="b").digest
