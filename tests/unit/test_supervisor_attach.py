"""What a worker is told when it attaches, and in which order: its answer first, then the orders."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobSpec, JobState, Outcome
from queuectl_protocol.lines import MAX_LINE
from queuectl_protocol.messages import AttachParams, AttachResult, AttemptResult
from queuectld.core.settings import Settings
from queuectld.host.clock import Clock
from queuectld.host.diskspace import DiskSpace
from queuectld.pool.supervisor import Supervisor
from queuectld.process_tree import marks, proc
from queuectld.queue import setback
from queuectld.queue.changes import ChangeStream
from queuectld.queue.enqueue import Enqueue
from queuectld.store.base import NewJob, Store, WorkerRecord
from queuectld.store.committer import Committer
from tests.harness import wait_for
from tests.store.jobs import NOW, new_job, put, sqlite_store


class Ear:
    """The worker's end of a connection: what it is told."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.worker: str | None = None
        self.heard: list[str] = []

    def notify(self, method: str, params: Struct) -> None:
        self.heard.append(method)

    def close(self) -> None:
        self.heard.append("closed")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerRecord]:
    """A process that an earlier daemon took for its worker: it lives, and holds its lock."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "exits").mkdir()
    lock = marks.take_lock(tmp_path / "workers" / "w1.lock")
    process = subprocess.Popen(["/bin/sleep", "1000"], pass_fds=(lock,))
    os.close(lock)
    entry = proc.process(process.pid)
    assert entry is not None
    yield WorkerRecord("w1", proc.boot_id(), process.pid, entry.start_ticks, time.time())
    process.kill()
    process.wait()


@asynccontextmanager
async def supervised(
    state_dir: Path, worker: WorkerRecord, job: NewJob, *, desired: int, clock: Clock | None = None
) -> AsyncIterator[tuple[Supervisor, Store, Committer]]:
    """A supervisor that has found the worker, to whom the job is leased."""
    store = sqlite_store(state_dir)
    (number,) = put(store, job)
    store.begin()
    store.add_worker(worker)
    store.start_attempt(number, 1, "token", worker.id, NOW)
    store.commit()
    running = store.running()
    changes = ChangeStream()
    committer = Committer(store, lambda _error: None, lambda: False, changes.publish)
    committer.start()
    supervisor = Supervisor(
        committer, Settings, clock or Clock(), DiskSpace(state_dir), lambda: state_dir / "sock", state_dir,
        None, os.environ, 1024, 0o077, "mark",
    )  # fmt: skip
    changes.subscribe(supervisor.changed)
    await supervisor.recover([worker], running, desired, 10)
    yield supervisor, store, committer
    supervisor.abandon()
    await committer.stop()
    store.close()


def attach_and(
    state_dir: Path, worker: WorkerRecord, params: AttachParams, meanwhile: Callable[[Supervisor], Awaitable[None]]
) -> tuple[AttachResult, list[str], list[str]]:
    """The worker, to whom a job is leased, attaches, and before it is answered something else happens.

    Returns:
        The answer, what the worker had heard before it, and what it has heard soon after.
    """

    async def play() -> tuple[AttachResult, list[str], list[str]]:
        async with supervised(state_dir, worker, new_job("job"), desired=1) as (supervisor, _store, _committer):
            ear = Ear(worker.pid)

            async def attach() -> tuple[AttachResult, list[str]]:
                answer = await supervisor.attach(ear, params)
                return answer, ear.heard.copy()

            attaching = asyncio.ensure_future(attach())
            await asyncio.sleep(0)  # until it waits for the store
            assert not attaching.done()
            await meanwhile(supervisor)
            answer, before = await attaching
            await asyncio.sleep(0)
        return answer, before, ear.heard[len(before) :]

    return asyncio.run(play())


def test_an_exit_that_is_asked_for_meanwhile_is_told_after_the_answer(tmp_path: Path, worker: WorkerRecord) -> None:
    """Found by the kill storm: told before, the worker exited, and the attempt that the answer brought was lost."""

    async def stop(supervisor: Supervisor) -> None:
        supervisor.carry_out(supervisor.plan_stop(None), now=False)

    answer, before, after = attach_and(tmp_path, worker, AttachParams(worker="w1"), stop)
    assert answer.lease is not None
    assert (before, after) == ([], ["worker.exit"])


def test_an_end_that_is_asked_for_meanwhile_is_told_after_the_answer(tmp_path: Path, worker: WorkerRecord) -> None:
    async def stop(supervisor: Supervisor) -> None:
        supervisor.carry_out(supervisor.plan_stop(None), now=True)

    answer, before, after = attach_and(tmp_path, worker, AttachParams(worker="w1"), stop)
    assert answer.lease is not None
    assert (before, after) == ([], ["attempt.end", "worker.exit"])


def test_one_that_was_told_to_exit_by_an_earlier_daemon_is_told_again(tmp_path: Path, worker: WorkerRecord) -> None:
    async def look(supervisor: Supervisor) -> None:
        assert [one.state for one in supervisor.workers()] == ["stopping"]

    answer, before, after = attach_and(tmp_path, worker, AttachParams(worker="w1", exiting=True), look)
    assert answer.lease is not None
    assert (before, after) == ([], ["worker.exit"])


def test_one_that_goes_while_it_is_leased_a_job_is_told_of_the_job_first(tmp_path: Path, worker: WorkerRecord) -> None:
    """It would have exited, and be lost with the job."""

    async def play() -> None:
        async with supervised(tmp_path, worker, new_job("job"), desired=1) as (supervisor, _store, _committer):
            ended = AttemptResult(1, 1, "token", Outcome.COMPLETED, NOW, exit_code=0)
            await supervisor.attach(Ear(worker.pid), AttachParams(worker="w1", ended=ended))
            await asyncio.sleep(0)  # until it waits for work
            await supervisor._committer.submit(Enqueue([JobSpec(command="true")], Settings(), NOW))
            ear = Ear(worker.pid)
            await supervisor.attach(ear, AttachParams(worker="w1", exiting=True))
            await asyncio.to_thread(wait_for, lambda: "worker.exit" in ear.heard, "the worker to be told to exit")
            assert ear.heard == ["attempt.start", "worker.exit"]

    asyncio.run(play())


def test_changed_settings_are_in_the_answer(tmp_path: Path, worker: WorkerRecord) -> None:
    async def change(supervisor: Supervisor) -> None:
        supervisor.settings_changed()

    _answer, before, after = attach_and(tmp_path, worker, AttachParams(worker="w1"), change)
    assert (before, after) == ([], [])


def test_a_worker_that_comes_again_without_a_large_job_is_replaced(tmp_path: Path, worker: WorkerRecord) -> None:
    """One of version 0.1.0 can't read its lease: it drops the connection and comes again, for ever."""
    large = new_job("job", env={f"V{number}": "x" * 1000 for number in range(MAX_LINE // 1000)})

    async def play() -> None:
        async with supervised(tmp_path, worker, large, desired=0) as (supervisor, store, _committer):
            ear = Ear(worker.pid)
            with pytest.raises(ProtocolError, match="did not take its job"):
                await supervisor.attach(ear, AttachParams(worker="w1"))
            assert ear.heard == ["closed"]
            await asyncio.to_thread(wait_for, lambda: not supervisor.workers(), "the worker to be gone")
            record = store.get(1)
            assert record is not None
            assert (record.state, record.attempts) == (JobState.PENDING, 0)
            assert [attempt.outcome for attempt in store.attempts(1)] == [Outcome.INTERRUPTED]

    asyncio.run(play())


def test_a_clock_that_is_set_back_while_a_lost_attempt_is_settled_makes_no_retry_later(tmp_path: Path) -> None:
    """What is settled after the jobs were moved has a time of the clock that was set back."""
    wall = time.time()
    clock = Clock(lambda: wall)
    gone = WorkerRecord("w1", "of another boot", 1, 1, wall)

    async def play() -> float:
        nonlocal wall
        async with supervised(tmp_path, gone, new_job("job"), desired=0, clock=clock) as (
            _supervisor,
            _store,
            committer,
        ):
            await asyncio.sleep(0)  # until it waits for the store
            wall -= 100_000
            assert await setback.come_back(clock, committer)
            while True:
                job = await committer.submit(lambda store: store.get(1))
                assert job is not None
                if job.state is JobState.FAILED:
                    return job.run_at

    assert asyncio.run(play()) <= wall + Settings().backoff_max
