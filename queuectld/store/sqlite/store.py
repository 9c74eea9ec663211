"""The SQLite store: one file, one writing connection, readers beside it."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from queuectl_protocol.jobs import WAITING, JobState, Outcome
from queuectld.core import lifecycle
from queuectld.store.base import Deleted, NewJob, ReadyJob, RunningAttempt, StorageError, StorageFailed, WorkerRecord
from queuectld.store.sqlite import statements as sql
from queuectld.store.sqlite.backup import write_backup
from queuectld.store.sqlite.connection import Connection, Row, Values
from queuectld.store.sqlite.heads import Heads
from queuectld.store.sqlite.migrations import MIGRATIONS, Migration
from queuectld.store.sqlite.opening import is_there, open_database, version_of
from queuectld.store.sqlite.reading import NO_LIMIT, Reading, SqliteReader
from queuectld.store.sqlite.rows import ready_of, running_of

_encoder = msgspec.json.Encoder(order="sorted")  # equal environments have equal bytes


TRIAL = ".check-"
"""How the name of a directory begins in which a migration is tried."""


def open_store(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> SqliteStore:
    """Open the database at `path`; make it if there is none, migrate it (after a backup beside it) if it is older.

    Raises:
        StorageUnusable: it can't be used; the message says why and what to do. It was left as it was.
        StorageError: there was no room for a migration's backup, or another failure of the disk.
    """
    return SqliteStore(path, open_database(path, migrations))


def rehearse_opening(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Find out whether `open_store` could open the database at `path`, which may be in use, and leave it as it is.

    A migration is tried on a copy, so it takes as long and as much room as the migration itself.

    Raises:
        StorageError: as `open_store`.
    """
    if not is_there(path):
        return
    if version_of(path, migrations) == migrations[-1].number:
        _try_reading(SqliteReader(path))
        return
    try:
        with tempfile.TemporaryDirectory(prefix=TRIAL, dir=path.parent) as trial:
            copy = Path(trial) / path.name
            write_backup(path, copy)
            _try_reading(SqliteStore(copy, open_database(copy, migrations, keep_old=False)))
    except OSError as error:
        raise StorageError(f"can't try the migration of {path}: {error.strerror}") from error


def _try_reading(reading: Reading) -> None:
    """What a daemon reads at its start."""
    try:
        for read in (reading.identity, reading.settings, reading.desired_workers, reading.workers, reading.running):
            read()
        reading.counts()
    finally:
        reading.close()


@dataclass(slots=True)
class _Totals:
    """What many writes of a transaction change, kept in memory and written once, at its commit."""

    counts: dict[JobState, int]
    last_seen_time: float

    def copy(self) -> _Totals:
        return _Totals(self.counts.copy(), self.last_seen_time)


def _time(run_at: object) -> float:
    """A job whose time is none is due at once, so that it is found out about."""
    return run_at if isinstance(run_at, float) else float("-inf")


class SqliteStore(Reading):
    """See base.Store. Made by `open_store`."""

    def __init__(self, path: Path, raw: sqlite3.Connection) -> None:
        super().__init__(path, Connection(raw, path))
        ((last_seen_time,),) = self._db.rows(sql.GET_LAST_SEEN_TIME)
        self._committed = _Totals(super().counts(), last_seen_time)
        self._totals = self._committed.copy()
        self._marked: _Totals | None = None
        self._heads = Heads()
        self._failed = False

    # the transaction

    def begin(self) -> None:
        if self._failed:
            raise StorageFailed("the disk failed before: start again, so that what is there can be found out")
        self._db.run("BEGIN IMMEDIATE")

    def mark(self) -> None:
        self._write("SAVEPOINT part")
        self._marked = self._totals.copy()

    def keep(self) -> None:
        self._write("RELEASE part")
        self._marked = None

    def undo(self) -> None:
        if self._marked is None:  # an error of the storage has undone the whole transaction already
            return
        self._write("ROLLBACK TO part")
        self._write("RELEASE part")
        self._totals, self._marked = self._marked, None
        self._heads.rolled_back()

    def commit(self) -> None:
        totals = self._totals
        if totals != self._committed:
            self._write(sql.SET_TOTALS, (*totals.counts.values(), totals.last_seen_time))
        try:
            self._write("COMMIT")
        except StorageFailed:
            self._failed = True
            raise
        self._committed = totals.copy()
        self._heads.committed()

    def rollback(self) -> None:
        # After an error of the storage SQLite may have rolled back by itself, or not.
        self._totals, self._marked = self._committed.copy(), None
        self._heads.rolled_back()
        if self._db.in_transaction:
            self._db.run("ROLLBACK")

    def reader(self) -> SqliteReader:
        return SqliteReader(self._path)

    def _write(self, statement: str, values: Values = ()) -> int:
        self._check_begun()
        try:
            return self._db.run(statement, values)
        except StorageError:
            self.rollback()
            raise

    def _check_begun(self) -> None:
        if not self._db.in_transaction:
            raise RuntimeError("a write outside of a transaction")

    def _count(self, before: JobState, after: JobState, now: float) -> None:
        self._totals.counts[before] -= 1
        self._totals.counts[after] += 1
        self._totals.last_seen_time = max(self._totals.last_seen_time, now)

    def _waits(self, priority: object, run_at: float) -> None:
        if isinstance(priority, int | float):  # else it is of a broken row that nobody can find
            self._heads.waits(priority, run_at)

    # reads that differ from a reader's

    def counts(self) -> dict[JobState, int]:
        return self._totals.counts.copy()

    def last_seen_time(self) -> float:
        return self._totals.last_seen_time

    # jobs

    def insert(self, jobs: Sequence[NewJob], now: float) -> dict[str, bytes]:
        environments: dict[bytes, int] = {}
        rows = [self._new_row(job, now, environments) for job in jobs]
        self._check_begun()
        try:
            inserted = self._insert(rows)
        except StorageError:
            self.rollback()
            raise
        self._totals.counts[lifecycle.NEW] += inserted
        self._totals.last_seen_time = max(self._totals.last_seen_time, now)
        for job in jobs:
            self._heads.waits(job.priority, job.run_at)
        return {} if inserted == len(jobs) else self._contradicted(jobs)

    def _insert(self, rows: list[Row]) -> int:
        """How many were inserted."""
        inserted = 0
        for begin in range(0, len(rows), sql.MOST_AT_ONCE):
            some = rows[begin : begin + sql.MOST_AT_ONCE]
            inserted += self._db.run(sql.INSERT_JOBS[len(some)], [*itertools.chain.from_iterable(some)])
        return inserted

    def _new_row(self, job: NewJob, now: float, environments: dict[bytes, int]) -> Row:
        return (
            job.id,
            job.digest,
            job.queue,
            job.priority,
            job.run_at,
            job.max_retries,
            job.timeout,
            now,
            now,
            job.exact_env,
            None if job.env is None else self._environment(job.env, environments),
            job.label,
            job.cwd,
            job.command,
            None if job.argv is None else _encoder.encode(job.argv).decode(),
        )

    def _environment(self, variables: dict[str, str], found: dict[bytes, int]) -> int:
        encoded = _encoder.encode(variables)
        number = found.get(encoded)
        if number is None:
            digest = hashlib.sha256(encoded).digest()
            row = self._db.row(sql.FIND_ENVIRONMENT, (digest,))
            if row is not None:
                number = int(row[0])
            else:
                self._write(sql.INSERT_ENVIRONMENT, (digest, encoded.decode()))
                ((number,),) = self._db.rows(sql.FIND_ENVIRONMENT, (digest,))
            found[encoded] = number
        return number

    def _contradicted(self, jobs: Sequence[NewJob]) -> dict[str, bytes]:
        wrong: dict[str, bytes] = {}
        for job in jobs:
            ((digest,),) = self._db.rows(sql.GET_DIGEST, (job.id,))
            if digest != job.digest:
                wrong[job.id] = digest
        return wrong

    def next_ready(self, now: float) -> ReadyJob | None:
        heads = self._complete_heads()
        while (priority := heads.highest_due(now)) is not None:
            row = self._db.row(sql.FIRST_RUNNABLE, (priority,))
            if row is None:
                heads.is_first(priority, None)
                continue
            run_at = row[-1]
            if not isinstance(run_at, float) or run_at <= now:  # what is no time is found out about at once
                return ready_of(row)
            heads.is_first(priority, run_at)
        return None

    def _complete_heads(self) -> Heads:
        heads = self._heads
        if not heads.is_complete:
            heads.is_unsure()  # an open transaction may have taken jobs out that a rollback brings back
            below = NO_LIMIT
            while (first := self._db.row(sql.FIRST_BELOW_PRIORITY, (below,))) is not None:
                below, run_at = first
                heads.waits(below, _time(run_at))
            heads.is_complete = True
        return heads

    def runnable(self, number: int) -> ReadyJob | None:
        row = self._db.row(sql.GET_RUNNABLE, (number,))
        return None if row is None else ready_of(row)

    def next_due(self, now: float) -> float | None:
        heads = self._complete_heads()
        heads.highest_due(now)
        # After `next_ready` has found nothing there is no priority with a job that is due.
        later = [self._db.row(sql.FIRST_DUE_LATER, (priority, now)) for priority in heads.all_due()]
        due = [run_at for row in later if row is not None and isinstance(run_at := row[0], float)]
        while (earliest := heads.earliest_later()) is not None:
            bound, priority = earliest
            row = self._db.row(sql.FIRST_DUE_LATER, (priority, now))
            if row is not None and row[0] == bound:
                return min([bound, *due])
            heads.is_first(priority, None if row is None else _time(row[0]))  # the first one has left the queue
        return min(due, default=None)

    def start_attempt(self, number: int, attempt: int, token: str, worker: str, now: float) -> JobState:
        for before, after in lifecycle.LEASED.items():
            if self._write(sql.LEASE_JOB, (after.value, attempt, now, number, before.value)):
                break
        else:
            raise LookupError(f"job number {number} is not waiting")
        self._write(sql.INSERT_ATTEMPT, (number, attempt, token, worker, now))
        self._count(before, after, now)
        return before

    def running_attempt(self, number: int) -> RunningAttempt | None:
        row = self._db.row(sql.GET_RUNNING_OF, (number,))
        return None if row is None else running_of(row)

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
        ended = self._write(sql.END_ATTEMPT, (outcome.value, exit_code, signal, error, ended_at, number, attempt))
        settled = ended and self._write(sql.SETTLE_JOB, (state.value, attempts, run_at, exit_code, error, now, number))
        if not settled:
            raise LookupError(f"attempt {attempt} of job number {number} is not running")
        self._count(before=JobState.PROCESSING, after=state, now=now)
        if state in WAITING:
            ((priority,),) = self._db.rows(sql.GET_PRIORITY, (number,))
            self._waits(priority, run_at)

    def update(
        self, number: int, *, state: JobState, attempts: int, run_at: float, cancelling: bool, now: float
    ) -> None:
        found = self._db.row(sql.GET_STATE_AND_PRIORITY, (number,))
        if found is None:
            raise LookupError(f"there is no job number {number}")
        before, priority = found
        self._write(sql.UPDATE_JOB, (state.value, attempts, run_at, cancelling, now, number))
        self._count(JobState(before), state, now)
        if state in WAITING:
            self._waits(priority, run_at)

    def delete(self, numbers: Sequence[int]) -> list[Deleted]:
        deleted: list[Deleted] = []
        environments: set[int] = set()
        for number in numbers:
            row = self._db.row(sql.GET_DELETABLE, (number,))
            if row is None:
                continue
            state, last_attempt, environment = row
            self._write(sql.DELETE_ATTEMPTS, (number,))
            self._write(sql.DELETE_JOB, (number,))
            self._totals.counts[JobState(state)] -= 1
            deleted.append(Deleted(number, last_attempt))
            if environment is not None:
                environments.add(environment)
        for environment in environments:
            self._write(sql.DELETE_ENVIRONMENT, (environment,))
        return deleted

    # settings, workers

    def set_setting(self, key: str, value: float) -> None:
        self._write(sql.SET_SETTING, (key, value))

    def unset_setting(self, key: str) -> None:
        self._write(sql.UNSET_SETTING, (key,))

    def set_desired_workers(self, count: int) -> None:
        self._write(sql.SET_DESIRED_WORKERS, (count,))

    def add_worker(self, worker: WorkerRecord) -> None:
        self._write(sql.ADD_WORKER, (worker.id, worker.boot_id, worker.pid, worker.start_ticks, worker.started_at))

    def remove_worker(self, worker_id: str) -> None:
        self._write(sql.REMOVE_WORKER, (worker_id,))

    # time

    def shift_waiting(self, seconds: float, now: float) -> None:
        self._write(sql.SHIFT_WAITING, (seconds,))
        self._totals.last_seen_time = now
        self._heads = Heads()
        self._heads.is_unsure()
