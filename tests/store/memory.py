"""A model of a store: dictionaries, and loops over all of them. Slow, and hopefully obviously right."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from msgspec import UNSET

from queuectl_protocol.jobs import WAITING, Attempt, Job, JobState, Outcome
from queuectld.core.choice import Traits
from queuectld.store.base import (
    MOST_ATTEMPTS,
    AlreadyThere,
    Deleted,
    GivenUp,
    Inserted,
    JobRecord,
    NewJob,
    ReadyJob,
    RunningAttempt,
    StorageError,
    WorkerRecord,
)
from queuectld.store.heads import Heads


@dataclass
class _Attempt:
    number: int
    token: str
    worker: str
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None


@dataclass
class _Job:
    number: int
    spec: NewJob
    created_at: float
    updated_at: float
    run_at: float
    state: JobState = JobState.PENDING
    attempts: int = 0
    cancelling: bool = False
    exit_code: int | None = None
    error: str | None = None
    history: list[_Attempt] = field(default_factory=list)


@dataclass
class _State:
    jobs: dict[int, _Job] = field(default_factory=dict)
    last_number: int = 0
    settings: dict[str, int | float] = field(default_factory=dict)
    desired_workers: int = 0
    identity: str = field(default_factory=lambda: secrets.token_hex(16))
    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    last_seen_time: float = 0.0


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _traits(job: _Job) -> Traits:
    return Traits(job.spec.queue, job.spec.priority)


class MemoryReader:
    def __init__(self, owner: MemoryStore | None = None) -> None:
        self._owner = owner

    def _state(self) -> _State:
        assert self._owner is not None
        return self._owner.committed

    def _record(self, job: _Job) -> JobRecord:
        return JobRecord(
            job.number,
            job.spec.id,
            job.state,
            job.attempts,
            job.spec.max_retries,
            job.run_at,
            job.cancelling,
            job.exit_code,
            job.error,
            job.updated_at,
        )

    def resolve(self, ref: str) -> list[tuple[int, str]]:
        ids = {job.spec.id: job.number for job in self._state().jobs.values()}
        if ref in ids:
            return [(ids[ref], ref)]
        return [(ids[job_id], job_id) for job_id in sorted(ids) if job_id.startswith(ref)][:3]

    def get(self, number: int) -> JobRecord | None:
        job = self._state().jobs.get(number)
        return None if job is None else self._record(job)

    def job(self, number: int, *, env: bool = False, attempts_before: int | None = None) -> Job | None:
        job = self._state().jobs.get(number)
        if job is None:
            return None
        shown = self._shown(job)
        history = self.attempts(number, before=attempts_before)
        return Job(
            **{
                name: getattr(shown, name)
                for name in shown.__struct_fields__
                if name not in ("env", "exact_env", "history", "older_attempts")
            },
            env=(job.spec.env or {}) if env else UNSET,
            exact_env=job.spec.exact_env if env else UNSET,
            history=history,
            older_attempts=(history[0].number - 1 if history else 0) or UNSET,
        )

    def _shown(self, job: _Job) -> Job:
        spec = job.spec
        return Job(
            id=spec.id,
            queue=spec.queue,
            state=job.state,
            command=UNSET if spec.command is None else spec.command,
            argv=UNSET if spec.argv is None else spec.argv,
            priority=spec.priority,
            attempts=job.attempts,
            max_retries=spec.max_retries,
            timeout=spec.timeout,
            label=spec.label,
            cwd=spec.cwd,
            run_at=_utc(job.run_at),
            created_at=_utc(job.created_at),
            updated_at=_utc(job.updated_at),
            exit_code=job.exit_code,
            error=job.error,
            cancelling=job.cancelling,
        )

    def attempts(self, number: int, most: int = MOST_ATTEMPTS, before: int | None = None) -> list[Attempt]:
        job = self._state().jobs.get(number)
        wanted = [one for one in (job.history if job else []) if before is None or one.number < before]
        return [
            Attempt(
                number=attempt.number,
                worker=attempt.worker,
                started_at=_utc(attempt.started_at),
                ended_at=None if attempt.ended_at is None else _utc(attempt.ended_at),
                outcome=attempt.outcome,
                exit_code=attempt.exit_code,
                signal=attempt.signal,
                error=attempt.error,
            )
            for attempt in wanted[-most:]
        ]

    def jobs(
        self, state: JobState | None, queue: str | None, limit: int, after: int | None
    ) -> tuple[list[Job], int | None]:
        found = [
            job
            for number, job in sorted(self._state().jobs.items(), reverse=True)
            if state in (None, job.state) and queue in (None, job.spec.queue) and (after is None or number < after)
        ]
        page = found[:limit]
        return [self._shown(job) for job in page], page[-1].number if len(found) > len(page) else None

    def counts(self) -> dict[JobState, int]:
        states = [job.state for job in self._state().jobs.values()]
        return {state: states.count(state) for state in JobState}

    def in_state(self, state: JobState, limit: int, after: int = 0) -> list[int]:
        return sorted(n for n, job in self._state().jobs.items() if job.state is state and n > after)[:limit]

    def settings(self) -> dict[str, int | float]:
        return dict(self._state().settings)

    def identity(self) -> str:
        return self._state().identity

    def desired_workers(self) -> int:
        return self._state().desired_workers

    def workers(self) -> list[WorkerRecord]:
        return sorted(self._state().workers.values(), key=lambda worker: (worker.started_at, worker.id))

    def running(self) -> list[RunningAttempt]:
        return [
            RunningAttempt(self._record(job), attempt.number, attempt.token, attempt.worker, attempt.started_at)
            for _, job in sorted(self._state().jobs.items())
            for attempt in job.history
            if attempt.ended_at is None
        ]

    def close(self) -> None:
        pass


class MemoryMaintenance:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def backup(self, path: Path, give_up: Callable[[], bool] = lambda: False) -> int:
        if give_up():
            raise GivenUp("the copy was given up")
        try:
            with path.open("x") as file:
                return file.write(repr(self._store.committed))
        except FileExistsError as error:
            raise AlreadyThere(str(error)) from error
        except OSError as error:
            raise StorageError(str(error)) from error

    def integrity_check(self, patience: float = 60.0, give_up: Callable[[], bool] = lambda: False) -> list[str]:
        if give_up():
            raise GivenUp("the check was given up")
        return []


class MemoryStore(MemoryReader):
    """The whole state is copied at each begin and mark; to undo is to take the copy."""

    def __init__(self) -> None:
        super().__init__()
        self.committed = _State()
        self._open: _State | None = None
        self._marked: _State | None = None

    def _state(self) -> _State:
        return self.committed if self._open is None else self._open

    def _writable(self, now: float | None = None) -> _State:
        if self._open is None:
            raise RuntimeError("a write outside of a transaction")
        if now is not None:
            self._open.last_seen_time = max(self._open.last_seen_time, now)
        return self._open

    def begin(self) -> None:
        assert self._open is None
        self._open = copy.deepcopy(self.committed)

    def mark(self) -> None:
        self._marked = copy.deepcopy(self._writable())

    def keep(self) -> None:
        self._marked = None

    def undo(self) -> None:
        assert self._marked is not None
        self._open, self._marked = self._marked, None

    def commit(self) -> None:
        self.committed, self._open = self._writable(), None

    def rollback(self) -> None:
        self._open = self._marked = None

    def reader(self) -> MemoryReader:
        return MemoryReader(self)

    @property
    def maintenance(self) -> MemoryMaintenance:
        return MemoryMaintenance(self)

    def insert(self, jobs: Sequence[NewJob], now: float) -> Inserted:
        state = self._writable(now)
        numbers: list[int | None] = []
        contradicted: dict[str, bytes] = {}
        for spec in jobs:
            state.last_number += 1  # also for one that is passed over, as it happens to be in SQLite: numbers have gaps
            there = [job.spec for job in state.jobs.values() if job.spec.id == spec.id]
            numbers.append(None if there else state.last_number)
            if not there:
                state.jobs[state.last_number] = _Job(state.last_number, copy.deepcopy(spec), now, now, spec.run_at)
            elif there[0].digest != spec.digest:
                contradicted[spec.id] = there[0].digest
        return Inserted(numbers, contradicted)

    def _waiting(self) -> list[_Job]:
        return [job for job in self._state().jobs.values() if job.state in WAITING]

    @property
    def heads(self) -> Heads:
        """Made anew each time, so it is never stale."""
        lanes = dict(enumerate(sorted({_traits(job) for job in self._waiting()})))

        def look(lane: int, most: int) -> list[tuple[float, int]]:
            return sorted((job.run_at, job.number) for job in self._waiting() if _traits(job) == lanes[lane])[:most]

        heads = Heads(look)
        for lane, traits in lanes.items():
            heads.add(lane, traits, 0.0)
        return heads

    def job_named_by_the_rule(self, now: float) -> ReadyJob | None:
        """The rule, as simply as it can be said; `heads` is not asked."""
        ready = [job for job in self._waiting() if job.run_at <= now]
        if not ready:
            return None
        return self.runnable(min(ready, key=lambda job: (-job.spec.priority, job.run_at, job.number)).number)

    def next_time(self) -> float | None:
        """The earliest at which a waiting job is due."""
        return min((job.run_at for job in self._waiting()), default=None)

    def runnable(self, number: int) -> ReadyJob | None:
        job = self._state().jobs.get(number)
        if job is None:
            return None
        spec = job.spec
        return ReadyJob(
            number=number,
            id=spec.id,
            queue=spec.queue,
            attempts=job.attempts,
            max_retries=spec.max_retries,
            timeout=spec.timeout,
            last_attempt=job.history[-1].number if job.history else 0,
            command=spec.command,
            argv=spec.argv,
            cwd=spec.cwd,
            env=spec.env,
            exact_env=spec.exact_env,
        )

    def start_attempt(self, number: int, attempt: int, token: str, worker: str, now: float) -> JobState:
        job = self._writable(now).jobs.get(number)
        if job is None or job.state not in WAITING:
            raise LookupError
        before, job.state, job.updated_at = job.state, JobState.PROCESSING, now
        job.attempts += 1
        job.history.append(_Attempt(attempt, token, worker, now))
        return before

    def running_attempt(self, number: int) -> RunningAttempt | None:
        found = [running for running in self.running() if running.job.number == number]
        return found[0] if found else None

    def end_attempt(
        self,
        number: int,
        attempt: int,
        *,
        outcome: Outcome,
        exit_code: int | None,
        signal: int | None,
        error: str | None,
        state: JobState,
        attempts: int,
        run_at: float,
        ended_at: float,
        now: float,
    ) -> None:
        job = self._writable(now).jobs.get(number)
        running = [old for old in job.history if old.number == attempt and old.ended_at is None] if job else []
        if job is None or not running or job.state is not JobState.PROCESSING:
            raise LookupError
        (ended,) = running
        ended.ended_at, ended.outcome, ended.exit_code, ended.signal, ended.error = (
            ended_at, outcome, exit_code, signal, error,
        )  # fmt: skip
        job.state, job.attempts, job.run_at, job.exit_code, job.error = state, attempts, run_at, exit_code, error
        job.cancelling, job.updated_at = False, now

    def update(
        self, number: int, *, state: JobState, attempts: int, run_at: float, cancelling: bool, now: float
    ) -> None:
        job = self._writable(now).jobs.get(number)
        if job is None:
            raise LookupError
        job.state, job.attempts, job.run_at, job.cancelling, job.updated_at = state, attempts, run_at, cancelling, now

    def delete(self, numbers: Sequence[int]) -> list[Deleted]:
        jobs = self._writable().jobs
        deleted = [jobs.pop(number) for number in dict.fromkeys(numbers) if number in jobs]
        return [Deleted(job.number, job.history[-1].number if job.history else 0) for job in deleted]

    def set_setting(self, key: str, value: float) -> None:
        self._writable().settings[key] = value

    def unset_setting(self, key: str) -> None:
        self._writable().settings.pop(key, None)

    def set_desired_workers(self, count: int) -> None:
        self._writable().desired_workers = count

    def add_worker(self, worker: WorkerRecord) -> None:
        self._writable().workers[worker.id] = worker

    def remove_worker(self, worker_id: str) -> None:
        self._writable().workers.pop(worker_id, None)

    def last_seen_time(self) -> float:
        return self._state().last_seen_time

    def shift_waiting(self, seconds: float, now: float) -> None:
        state = self._writable()
        for job in state.jobs.values():
            if job.state in WAITING:
                job.run_at += seconds
        state.last_seen_time = now
