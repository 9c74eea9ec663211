"""Who waits for a job is told of its changes, and of no others."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, cast

from queuectl_protocol.jobs import JobState, Outcome
from queuectl_protocol.messages import JobSummaries, JobSummary, JobWaitParams
from queuectld.core.lifecycle import Event
from queuectld.handlers import jobs
from queuectld.handlers.context import Context
from queuectld.queue.changes import After, Change
from queuectld.queue.watchers import AnyChange, Ends, Watchers
from queuectld.store.base import JobRecord, Reader
from queuectld.store.readers import Readers
from queuectld.store.sqlite.reading import SqliteReader
from tests.store.jobs import NOW, end, new_job, put, sqlite_store


def ended(number: int, state: JobState = JobState.COMPLETED) -> JobSummary:
    return JobSummary(id=f"job-{number}", state=state)


def change(number: int, end: JobSummary) -> Change:
    return Change(number, JobState.PROCESSING, After(end.state, None, end), Event.COMPLETE)


def began(number: int) -> Change:
    return Change(number, JobState.PENDING, After(JobState.PROCESSING), Event.LEASE)


def removed(number: int) -> Change:
    return Change(number, JobState.DEAD, None, Event.REMOVE)


def test_a_change_is_told_to_those_who_wait_for_that_job_and_to_nobody_else() -> None:
    watchers, (first, both, other) = Watchers(), (AnyChange(), AnyChange(), AnyChange())
    for numbers, watch in (([1], first), ([1, 2], both), ([3], other)):
        watchers.subscribe(numbers, watch)
    watchers.changed([began(1)])
    assert [watch.event.is_set() for watch in (first, both, other)] == [True, True, False]
    both.event.clear()
    watchers.changed([change(2, ended(2))])
    assert [watch.event.is_set() for watch in (both, other)] == [True, False]


def test_who_has_left_is_not_told_and_costs_no_memory() -> None:
    watchers, leaving, staying = Watchers(), AnyChange(), AnyChange()
    watchers.subscribe([1, 2], leaving)
    watchers.subscribe([2], staying)
    watchers.unsubscribe([1, 2], leaving)
    watchers.changed([began(1)])
    watchers.changed([began(2)])
    assert not leaving.event.is_set()
    assert staying.event.is_set()
    watchers.unsubscribe([2], staying)
    assert not watchers._watches


def test_leaving_twice_and_changes_of_jobs_that_nobody_waits_for_are_fine() -> None:
    watchers, watch = Watchers(), AnyChange()
    watchers.subscribe([1, 1], watch)
    watchers.unsubscribe([1], watch)
    watchers.unsubscribe([1, 7], watch)
    for number in range(100):
        watchers.changed([began(number)])
        watchers.changed([removed(number)])
    assert not watchers._watches, "a change of a job that nobody waits for leaves nothing behind"


def test_a_stop_and_a_removal_wake() -> None:
    watchers = Watchers()
    watches: list[AnyChange | Ends] = [AnyChange(), Ends([1]), AnyChange(), Ends([3])]
    for number, watch in enumerate(watches):
        watchers.subscribe([number], watch)
    watchers.changed([removed(1)])
    assert [watch.event.is_set() for watch in watches] == [False, True, False, False]
    watchers.wake_all()
    assert all(watch.event.is_set() for watch in watches)


def test_the_ends_of_jobs_are_remembered_until_one_is_run_again() -> None:
    ends = Ends([1, 2])
    ends.changed(began(1))
    ends.changed(change(1, ended(1, JobState.DEAD)))
    ends.changed(began(1))
    ends.changed(change(2, ended(2)))
    assert (ends.all_ended, ends.event.is_set()) == (False, False)
    ends.changed(change(1, ended(1)))
    assert (ends.all_ended, ends.event.is_set()) == (True, True)
    assert ends.jobs == {1: ended(1), 2: ended(2)}


class _Counted(SqliteReader):
    """Counts the jobs that were looked at."""

    looks = 0

    def get(self, number: int) -> JobRecord | None:
        _Counted.looks += 1
        return super().get(number)


def wait_for_fifty(state_dir: Path, meanwhile: int) -> tuple[JobSummaries, int]:
    """Wait for 50 jobs, of which some end one by one meanwhile; the answer, and how many looks at jobs it took."""

    async def play() -> JobSummaries:
        store = sqlite_store(state_dir)
        numbers = put(store, *[new_job(f"job-{number}", max_retries=1) for number in range(50)])

        def make() -> Reader:
            return _Counted(state_dir / "queue.db")

        readers, watchers = Readers(make), Watchers()
        unused = cast("Any", None)
        given = {field.name: unused for field in dataclasses.fields(Context)}
        context = Context(**given | {"readers": readers, "watchers": watchers, "stopped": False})
        params = JobWaitParams(ids=[f"job-{number}" for number in range(50)], timeout=None if meanwhile == 50 else 0)
        waiting = asyncio.ensure_future(jobs.wait(context, unused, params))
        for number in numbers[:meanwhile]:
            await asyncio.sleep(0.001)
            store.begin()
            store.start_attempt(number, 1, "token", "w", NOW)
            store.commit()
            watchers.changed([began(number)])
            store.begin()
            end(store, number, 1, JobState.DEAD, outcome=Outcome.FAILED)
            store.commit()
            watchers.changed([change(number, ended(number, JobState.DEAD))])
        answer = await waiting
        readers.close()
        store.close()
        return answer

    _Counted.looks = 0
    return asyncio.run(play()), _Counted.looks


def test_waiting_for_many_jobs_looks_at_each_a_few_times_however_many_end(tmp_path: Path) -> None:
    answer, looks = wait_for_fifty(tmp_path, 50)
    assert {job.state for job in answer.jobs} == {JobState.DEAD}
    assert len(answer.jobs) == 50
    assert looks <= 3 * 50


def test_a_wait_that_takes_too_long_tells_the_states(tmp_path: Path) -> None:
    answer, _looks = wait_for_fifty(tmp_path, 0)
    assert {job.state for job in answer.jobs} == {JobState.PENDING}
