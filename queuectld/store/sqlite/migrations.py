"""The schema, as the numbered steps that lead to it.

A released migration is never changed: a new one follows it. `user_version` in the file's header is the number of the
last one applied.
"""

from __future__ import annotations

from dataclasses import dataclass

APPLICATION_ID = 0x51637464
"""`Qctd`, in the header of each of our files; sqlite3(1) and file(1) show it."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: statements that turn schema `number - 1` into schema `number`."""

    number: int
    statements: tuple[str, ...]


_TABLES = (
    # Equal environments are stored once: thousands of jobs of one shell share theirs.
    """
    CREATE TABLE environments (
        number INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        variables TEXT NOT NULL
    )
    """,
    # AUTOINCREMENT: paths are made of the number, so it must not come back after a delete.
    # What is long comes last, so that nothing else of a row lands on an overflow page.
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        digest BLOB NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('pending', 'processing', 'completed', 'failed', 'dead', 'cancelled')),
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        run_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        max_retries INTEGER NOT NULL,
        timeout REAL NOT NULL,
        cancelling INTEGER NOT NULL DEFAULT 0,
        last_attempt INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        exit_code INTEGER,
        exact_env INTEGER NOT NULL,
        environment INTEGER REFERENCES environments (number),
        label TEXT NOT NULL,
        cwd TEXT,
        error TEXT,
        command TEXT,
        argv TEXT
    )
    """,
    """
    CREATE TABLE attempts (
        job INTEGER NOT NULL REFERENCES jobs (number),
        number INTEGER NOT NULL,
        token TEXT NOT NULL,
        worker TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        outcome TEXT,
        exit_code INTEGER,
        signal INTEGER,
        error TEXT,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID
    """,
    # `value` has no type, so that an integer stays one and a float stays one.
    "CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE workers (
        id TEXT NOT NULL PRIMARY KEY,
        boot_id TEXT NOT NULL,
        pid INTEGER NOT NULL,
        start_ticks INTEGER NOT NULL,
        started_at REAL NOT NULL
    ) WITHOUT ROWID
    """,
    # One row, so that all that changes with each commit costs one statement and one page.
    """
    CREATE TABLE totals (
        the_only INTEGER PRIMARY KEY CHECK (the_only = 1),
        pending INTEGER NOT NULL,
        processing INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        dead INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        last_seen_time REAL NOT NULL,
        desired_workers INTEGER NOT NULL
    )
    """,
    "INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0, 0.0, 0)",
)

# SQLite appends the rowid, which is `number`, to each of them.
_INDEXES = (
    "CREATE UNIQUE INDEX jobs_by_id ON jobs (id)",
    "CREATE INDEX jobs_waiting ON jobs (priority DESC, run_at) WHERE state IN ('pending', 'failed')",
    "CREATE INDEX jobs_by_state ON jobs (state)",
    "CREATE INDEX jobs_by_queue ON jobs (queue)",
    "CREATE INDEX jobs_by_environment ON jobs (environment) WHERE environment IS NOT NULL",
)

# A copy of the database keeps its identity: what tells the copy apart is its directory.
_IDENTITY = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('identity', lower(hex(randomblob(16))))",
)

# `lane` is of waiting jobs only: an empty lane can be deleted, however many ended jobs there were in it.
_LANES = (
    """
    CREATE TABLE lanes (
        number INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        UNIQUE (queue, priority)
    )
    """,
    """
    INSERT INTO lanes (queue, priority)
    SELECT DISTINCT queue, priority FROM jobs WHERE state IN ('pending', 'failed') ORDER BY queue, priority
    """,
    "ALTER TABLE jobs ADD COLUMN lane INTEGER",
    "DROP INDEX jobs_waiting",
    """
    UPDATE jobs
    SET lane = (SELECT number FROM lanes WHERE lanes.queue = jobs.queue AND lanes.priority = jobs.priority)
    WHERE state IN ('pending', 'failed')
    """,
    "CREATE INDEX jobs_waiting ON jobs (lane, run_at) WHERE lane IS NOT NULL",
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, _TABLES + _INDEXES),
    Migration(2, _IDENTITY),
    Migration(3, _LANES),
)
"""All of them, ascending from 1."""
