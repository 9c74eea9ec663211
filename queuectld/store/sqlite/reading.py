"""What can be read, by the writer's connection and by readers of what is committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import UNSET

from queuectl_protocol.jobs import Attempt, Job, JobState
from queuectld.store.base import (
    MOST_ATTEMPTS,
    JobRecord,
    RunningAttempt,
    WorkerRecord,
)
from queuectld.store.sqlite import statements as sql
from queuectld.store.sqlite.connection import Connection, Row, open_reader, text_size
from queuectld.store.sqlite.errors import translate
from queuectld.store.sqlite.rows import attempt_of, environment_of, job_of, record_of, running_of

NO_LIMIT = 2**63 - 1
"""Above every job's number."""
_AFTER_EVERY_ID_CHARACTER = "\x7f"
_FEW = 10_000
_ROWS_AT_ONCE = 100
_PAGE_BYTES = 1024 * 1024
"""Of one page: jobs can be large, and a thousand large ones must not fill the memory."""
_JOB_BYTES = 500
"""About how many a job takes beside its texts."""


class Reading:
    """The reads that the store and its readers share. See base.Reader for what each promises."""

    def __init__(self, path: Path, db: Connection) -> None:
        self._path = path
        self._db = db

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment. Nothing to do for the one writer."""
        yield

    def resolve(self, ref: str) -> list[tuple[int, str]]:
        with self._snapshot():
            rows = self._db.rows(sql.FIND_ID, (ref,)) or self._db.rows(
                sql.FIND_PREFIX, (ref, ref + _AFTER_EVERY_ID_CHARACTER)
            )
        return [(number, job_id) for number, job_id in rows]

    def get(self, number: int) -> JobRecord | None:
        row = self._db.row(sql.GET_RECORD, (number,))
        return None if row is None else record_of(row)

    def job(self, number: int, *, env: bool = False, attempts_before: int | None = None) -> Job | None:
        with self._snapshot():
            row = self._db.row(sql.GET_JOB, (number,))
            if row is None:
                return None
            history = self.attempts(number, before=attempts_before)
            environment = self._db.row(sql.GET_ENVIRONMENT, (number,)) if env else None
        older = history[0].number - 1 if history else 0
        job = msgspec.structs.replace(job_of(row), history=history, older_attempts=older or UNSET)
        if environment is not None:
            variables, exact = environment
            job = msgspec.structs.replace(job, env=environment_of(variables), exact_env=bool(exact))
        return job

    def attempts(self, number: int, most: int = MOST_ATTEMPTS, before: int | None = None) -> list[Attempt]:
        page = (number, NO_LIMIT if before is None else before, most)
        return [attempt_of(row) for row in reversed(self._db.rows(sql.GET_ATTEMPTS, page, _PAGE_BYTES))]

    def jobs(
        self, state: JobState | None, queue: str | None, limit: int, after: int | None
    ) -> tuple[list[Job], int | None]:
        found: list[Job] = []
        size = text = 0
        below = NO_LIMIT if after is None else min(after, NO_LIMIT)
        while True:
            wanted = min(limit - len(found), _ROWS_AT_ONCE)
            # One more than wanted, to see whether another page follows; fewer where they are large.
            rows = self._rows_below(state, queue, below, wanted + 1, _PAGE_BYTES - text)
            for row in rows[:wanted]:
                found.append(job_of(row))
                text += text_size(row)
                size += _JOB_BYTES + text_size(row)
                below = row[0]
            if len(rows) <= wanted and text <= _PAGE_BYTES:
                return found, None
            if len(found) >= limit or size > _PAGE_BYTES:
                return found, below

    def _rows_below(self, state: JobState | None, queue: str | None, below: int, limit: int, most: int) -> list[Row]:
        page = (below, limit)
        if state is None and queue is None:
            rows = self._db.rows(sql.LIST_ALL, page, most)
        elif state is None:
            rows = self._db.rows(sql.LIST_QUEUE, (queue, *page), most)
        elif queue is None:
            rows = self._db.rows(sql.LIST_STATE, (state.value, *page), most)
        else:
            # One index leads, and the other condition is looked up row by row: let the one lead that has few rows.
            few = self.counts()[state] < _FEW
            statement = sql.LIST_STATE_THEN_QUEUE if few else sql.LIST_QUEUE_THEN_STATE
            rows = self._db.rows(statement, (state.value, queue, *page), most)
        return rows

    def counts(self) -> dict[JobState, int]:
        (row,) = self._db.rows(sql.GET_COUNTS)
        return dict(zip(JobState, row, strict=True))

    def in_state(self, state: JobState, limit: int, after: int = 0) -> list[int]:
        return [number for (number,) in self._db.rows(sql.NUMBERS_IN_STATE, (state.value, after, limit))]

    def settings(self) -> dict[str, int | float]:
        return dict(self._db.rows(sql.GET_SETTINGS))

    def identity(self) -> str:
        ((identity,),) = self._db.rows(sql.GET_IDENTITY)
        return str(identity)

    def desired_workers(self) -> int:
        ((count,),) = self._db.rows(sql.GET_DESIRED_WORKERS)
        return int(count)

    def workers(self) -> list[WorkerRecord]:
        return [WorkerRecord(*row) for row in self._db.rows(sql.GET_WORKERS)]

    def running(self) -> list[RunningAttempt]:
        return [running_of(row) for row in self._db.rows(sql.GET_RUNNING)]

    def close(self) -> None:
        self._db.close()


class SqliteReader(Reading):
    """Reads what is committed, over a connection of its own that can't write."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            StorageFailed: it can't be opened.
        """
        try:
            raw = open_reader(path)
        except sqlite3.Error as error:
            raise translate(error, path) from error
        super().__init__(path, Connection(raw, path))

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._db.run("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.run("ROLLBACK")
