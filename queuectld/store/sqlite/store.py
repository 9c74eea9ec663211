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
from queuectld.core.choice import Traits
from queuectld.store.base import (
    Deleted,
    Inserted,
    NewJob,
    ReadyJob,
    RunningAttempt,
    StorageError,
    StorageFailed,
    WorkerRecord,
)
from queuectld.store.heads import Heads
from queuectld.store.sqlite import statements as sql
from queuectld.store.sqlite.backup import write_backup
from queuectld.store.sqlite.connection import Connection, Row, Values
from queuectld.store.sqlite.maintenance import SqliteMaintenance
from queuectld.store.sqlite.migrations import MIGRATIONS, Migration
from queuectld.store.sqlite.opening import is_there, open_database, version_of
from queuectld.store.sqlite.reading import Reading, SqliteReader
from queuectld.store.sqlite.rows import ready_of, running_of, time_of, traits_of

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


class SqliteStore(Reading):
    """See base.Store. Made by `open_store`."""

    def __init__(self, path: Path, raw: sqlite3.Connection) -> None:
        super().__init__(path, Connection(raw, path))
        ((last_seen_time,),) = self._db.rows(sql.GET_LAST_SEEN_TIME)
        self._committed = _Totals(super().counts(), last_seen_time)
        self._totals = self._committed.copy()
        self._marked: _Totals | None = None
        self._loaded: Heads | None = None
        self._failed = False

    # the transaction

    def begin(self) -> None:
        if self._failed:
            raise StorageFailed("the disk failed before: start again, so that what is there can be found out")
        self._db.run("BEGIN IMMEDIATE")
        _ = self.heads  # loaded before anything changes: a rollback knows nothing of what was before

    def mark(self) -> None:
        self._write("SAVEPOINT part")
        self._marked = self._totals.copy()
        self.heads.mark()

    def keep(self) -> None:
        self._write("RELEASE part")
        self._marked = None

    def undo(self) -> None:
        if self._marked is None:  # an error of the storage has undone the whole transaction already
            return
        self._write("ROLLBACK TO part")
        self._write("RELEASE part")
        self._totals, self._marked = self._marked, None
        self.heads.undone()

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
        self.heads.committed()

    def rollback(self) -> None:
        # After an error of the storage SQLite may have rolled back by itself, or not.
        self._totals, self._marked = self._committed.copy(), None
        if self._loaded is not None:
            self._loaded.rolled_back()
        if self._db.in_transaction:
            self._db.run("ROLLBACK")

    def reader(self) -> SqliteReader:
        return SqliteReader(self._path)

    @property
    def maintenance(self) -> SqliteMaintenance:
        return SqliteMaintenance(self._path)

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

    # reads that differ from a reader's

    def counts(self) -> dict[JobState, int]:
        return self._totals.counts.copy()

    def last_seen_time(self) -> float:
        return self._totals.last_seen_time

    # jobs

    def insert(self, jobs: Sequence[NewJob], now: float) -> Inserted:
        environments: dict[bytes, int] = {}
        self._check_begun()
        lanes: list[int] = []
        for job in jobs:
            lane = self._lane(job.queue, job.priority)
            self.heads.waits(lane, job.run_at)  # before the next lane is made, for which empty ones are removed
            lanes.append(lane)
        rows = [self._new_row(job, lane, now, environments) for job, lane in zip(jobs, lanes, strict=True)]
        try:
            inserted, numbers = self._insert(rows)
        except StorageError:
            self.rollback()
            raise
        self._totals.counts[lifecycle.NEW] += inserted
        self._totals.last_seen_time = max(self._totals.last_seen_time, now)
        if inserted == len(jobs):
            return Inserted(numbers, {})
        for lane in lanes:
            self.heads.may_be_empty(lane)
        return self._found(jobs, inserted)

    def _insert(self, rows: list[Row]) -> tuple[int, list[int]]:
        """How many were inserted; and their numbers, where all were."""
        inserted, numbers = 0, list[int]()
        for begin in range(0, len(rows), sql.MOST_AT_ONCE):
            some = rows[begin : begin + sql.MOST_AT_ONCE]
            new, last = self._db.insert(sql.INSERT_JOBS[len(some)], [*itertools.chain.from_iterable(some)])
            inserted += new
            numbers += range(last - new + 1, last + 1)  # one statement gives numbers that follow each other
        return inserted, numbers

    def _new_row(self, job: NewJob, lane: int, now: float, environments: dict[bytes, int]) -> Row:
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
            lane,
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

    def _found(self, jobs: Sequence[NewJob], inserted: int) -> Inserted:
        """What became of jobs of which so many were inserted; the others were there."""
        there: dict[str, tuple[int, bytes]] = {}
        for job in jobs:
            ((number, digest),) = self._db.rows(sql.GET_NUMBER_AND_DIGEST, (job.id,))
            there[job.id] = number, digest
        new = set(sorted(number for number, _ in there.values())[len(there) - inserted :])  # numbers only ever grow
        numbers: list[int | None] = []
        for job in jobs:
            number, _ = there[job.id]
            numbers.append(number if number in new else None)
            new.discard(number)
        return Inserted(numbers, {job.id: found for job in jobs if (found := there[job.id][1]) != job.digest})

    def runnable(self, number: int) -> ReadyJob | None:
        row = self._db.row(sql.GET_RUNNABLE, (number,))
        return None if row is None else ready_of(row)

    def start_attempt(self, number: int, attempt: int, token: str, worker: str, now: float) -> JobState:
        self._check_begun()
        lane = self.heads.lane_of(number)
        if lane is None:
            _, lane = self._state_and_lane(number)
        for before, after in lifecycle.LEASED.items():
            if self._write(sql.LEASE_JOB, (after.value, attempt, now, number, before.value)):
                break
        else:
            raise LookupError(f"job number {number} is not waiting")
        self._write(sql.INSERT_ATTEMPT, (number, attempt, token, worker, now))
        self._count(before, after, now)
        self._left(lane, number)
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
        lane = self._lane_of(number) if state in WAITING else None
        ended = self._write(sql.END_ATTEMPT, (outcome.value, exit_code, signal, error, ended_at, number, attempt))
        settled = ended and self._write(
            sql.SETTLE_JOB, (state.value, lane, attempts, run_at, exit_code, error, now, number)
        )
        if not settled:
            raise LookupError(f"attempt {attempt} of job number {number} is not running")
        self._count(before=JobState.PROCESSING, after=state, now=now)
        if lane is not None:
            self.heads.waits(lane, run_at)

    def update(
        self, number: int, *, state: JobState, attempts: int, run_at: float, cancelling: bool, now: float
    ) -> None:
        before, left = self._state_and_lane(number)
        lane = self._lane_of(number) if state in WAITING else None
        self._write(sql.UPDATE_JOB, (state.value, lane, attempts, run_at, cancelling, now, number))
        self._count(before, state, now)
        self._left(left, number)
        if lane is not None:
            self.heads.waits(lane, run_at)

    def _state_and_lane(self, number: int) -> tuple[JobState, int | None]:
        """
        Raises:
            LookupError: there is no such job.
        """
        self._check_begun()
        row = self._db.row(sql.GET_STATE_AND_LANE, (number,))
        if row is None:
            raise LookupError(f"there is no job number {number}")
        state, lane = row
        return JobState(state), lane

    def _left(self, lane: int | None, number: int) -> None:
        if lane is not None:
            self.heads.left(lane, number)

    def delete(self, numbers: Sequence[int]) -> list[Deleted]:
        deleted: list[Deleted] = []
        environments: set[int] = set()
        for number in numbers:
            row = self._db.row(sql.GET_DELETABLE, (number,))
            if row is None:
                continue
            state, lane, last_attempt, environment = row
            self._write(sql.DELETE_ATTEMPTS, (number,))
            self._write(sql.DELETE_JOB, (number,))
            self._totals.counts[JobState(state)] -= 1
            self._left(lane, number)
            deleted.append(Deleted(number, last_attempt))
            if environment is not None:
                environments.add(environment)
        for environment in environments:
            self._write(sql.DELETE_ENVIRONMENT, (environment,))
        return deleted

    # lanes

    @property
    def heads(self) -> Heads:
        """Loaded when they are first needed: a database with a damaged index can be opened, to find that out."""
        if self._loaded is None:
            self._loaded = self._load_heads()
        return self._loaded

    def _load_heads(self) -> Heads:
        heads = Heads(self._first_waiting)
        for number, queue, priority, run_at in self._db.rows(sql.GET_LANES):
            heads.add(number, traits_of(queue, priority), None if run_at is None else time_of(run_at))
        heads.committed()
        return heads

    def _first_waiting(self, lane: int, most: int) -> list[tuple[float, int]]:
        return [(time_of(run_at), number) for run_at, number in self._db.rows(sql.FIRST_WAITING, (lane, most))]

    def _lane(self, queue: str, priority: int) -> int:
        """The number of the lane with these traits, which is made if there is none."""
        number = self.heads.number_of(queue, priority)
        if number is None:
            for empty in self.heads.removable():
                if self._write(sql.REMOVE_EMPTY_LANE, (empty,)):
                    self.heads.remove(empty)
            row = self._db.row(sql.FIND_LANE, (queue, priority))
            if row is not None:  # of two lanes whose queues can't be read, and then look alike, only one is known by it
                return int(row[0])
            self._write(sql.ADD_LANE, (queue, priority))
            ((number,),) = self._db.rows(sql.FIND_LANE, (queue, priority))
            self.heads.add(number, Traits(queue, priority))
        return int(number)

    def _lane_of(self, number: int) -> int:
        """
        Raises:
            LookupError: there is no such job.
        """
        self._check_begun()
        row = self._db.row(sql.GET_TRAITS, (number,))
        if row is None:
            raise LookupError(f"there is no job number {number}")
        return self._lane(*traits_of(*row))

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
        self.heads.all_times_changed()
