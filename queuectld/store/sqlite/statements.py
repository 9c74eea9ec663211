# ruff: noqa: S608 - the columns put in are constants of this module
"""Every SQL statement of the running store, by name: tests/store explains each of them, and refuses a full scan.

`INDEXED BY` is there because SQLite without statistics would guess, and because it fails loudly when an index is lost.
"""

from __future__ import annotations

from queuectld.core import lifecycle

_RECORD = "number, id, state, attempts, max_retries, run_at, cancelling, exit_code, error, updated_at"
_JOB = (
    "number, id, queue, state, command, argv, priority, attempts, max_retries, timeout, label, cwd, run_at, "
    "created_at, updated_at, exit_code, error, cancelling"
)

# reads

FIND_ID = "SELECT number, id FROM jobs WHERE id = ?"
FIND_PREFIX = "SELECT number, id FROM jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT 3"
GET_RECORD = f"SELECT {_RECORD} FROM jobs WHERE number = ?"
GET_JOB = f"SELECT {_JOB} FROM jobs WHERE number = ?"
GET_ENVIRONMENT = """
    SELECT e.variables, j.exact_env FROM jobs AS j LEFT JOIN environments AS e ON e.number = j.environment
    WHERE j.number = ?
"""
GET_ATTEMPTS = """
    SELECT number, worker, started_at, ended_at, outcome, exit_code, signal, error
    FROM attempts WHERE job = ? AND number < ? ORDER BY number DESC LIMIT ?
"""
LIST_ALL = f"SELECT {_JOB} FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?"
LIST_STATE = f"""
    SELECT {_JOB} FROM jobs INDEXED BY jobs_by_state
    WHERE state = ? AND number < ? ORDER BY number DESC LIMIT ?
"""
LIST_QUEUE = f"""
    SELECT {_JOB} FROM jobs INDEXED BY jobs_by_queue
    WHERE queue = ? AND number < ? ORDER BY number DESC LIMIT ?
"""
LIST_STATE_THEN_QUEUE = f"""
    SELECT {_JOB} FROM jobs INDEXED BY jobs_by_state
    WHERE state = ? AND queue = ? AND number < ? ORDER BY number DESC LIMIT ?
"""
LIST_QUEUE_THEN_STATE = f"""
    SELECT {_JOB} FROM jobs INDEXED BY jobs_by_queue
    WHERE state = ? AND queue = ? AND number < ? ORDER BY number DESC LIMIT ?
"""
GET_COUNTS = "SELECT pending, processing, completed, failed, dead, cancelled FROM totals WHERE the_only = 1"
GET_LAST_SEEN_TIME = "SELECT last_seen_time FROM totals WHERE the_only = 1"
GET_IDENTITY = "SELECT value FROM meta WHERE key = 'identity'"
GET_DESIRED_WORKERS = "SELECT desired_workers FROM totals WHERE the_only = 1"
GET_SETTINGS = "SELECT key, value FROM settings ORDER BY key"
GET_WORKERS = "SELECT id, boot_id, pid, start_ticks, started_at FROM workers ORDER BY started_at, id"
_RUNNING = f"""
    SELECT {", ".join("j." + column for column in _RECORD.split(", "))}, a.number, a.token, a.worker, a.started_at
    FROM jobs AS j {{index}} JOIN attempts AS a ON a.job = j.number AND a.number = j.last_attempt
    WHERE j.state = 'processing' AND a.ended_at IS NULL
"""
# A running attempt is always the newest of a job that is `processing`: no index of running ones has to be kept.
GET_RUNNING = _RUNNING.format(index="INDEXED BY jobs_by_state") + " ORDER BY j.number"
GET_RUNNING_OF = _RUNNING.format(index="") + " AND j.number = ?"

# writes

_INSERT_JOBS = """
    INSERT INTO jobs (id, digest, state, queue, priority, run_at, max_retries, timeout, created_at, updated_at,
        exact_env, environment, label, cwd, command, argv, lane)
    VALUES {rows}
    ON CONFLICT (id) DO NOTHING
"""
_NEW_JOB = f"(?, ?, '{lifecycle.NEW}', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
MOST_AT_ONCE = 32
INSERT_JOBS = {count: _INSERT_JOBS.format(rows=", ".join([_NEW_JOB] * count)) for count in range(1, MOST_AT_ONCE + 1)}
"""By how many: a statement lets go of the interpreter several times, and the other thread then takes it each time."""
GET_NUMBER_AND_DIGEST = "SELECT number, digest FROM jobs WHERE id = ?"
FIND_ENVIRONMENT = "SELECT number FROM environments WHERE digest = ?"
INSERT_ENVIRONMENT = "INSERT INTO environments (digest, variables) VALUES (?, ?)"
GET_LANES = """
    SELECT number, queue, priority,
        (SELECT run_at FROM jobs INDEXED BY jobs_waiting WHERE lane = lanes.number ORDER BY run_at LIMIT 1)
    FROM lanes
"""
FIRST_WAITING = """
    SELECT run_at, number FROM jobs INDEXED BY jobs_waiting WHERE lane = ? ORDER BY run_at, number LIMIT ?
"""
ADD_LANE = "INSERT INTO lanes (queue, priority) VALUES (?, ?)"
FIND_LANE = "SELECT number FROM lanes WHERE queue = ? AND priority = ?"
REMOVE_EMPTY_LANE = """
    DELETE FROM lanes
    WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_waiting WHERE lane = ?1)
"""
_RUNNABLE = """
    j.number, j.id, j.queue, j.attempts, j.max_retries, j.timeout, j.last_attempt, j.command, j.argv, j.cwd,
    e.variables, j.exact_env, j.run_at
"""
GET_RUNNABLE = f"""
    SELECT {_RUNNABLE} FROM jobs AS j LEFT JOIN environments AS e ON e.number = j.environment WHERE j.number = ?
"""
LEASE_JOB = """
    UPDATE jobs SET state = ?, lane = NULL, attempts = attempts + 1, last_attempt = ?, updated_at = ?
    WHERE number = ? AND state = ?
"""
INSERT_ATTEMPT = "INSERT INTO attempts (job, number, token, worker, started_at) VALUES (?, ?, ?, ?, ?)"
END_ATTEMPT = """
    UPDATE attempts SET outcome = ?, exit_code = ?, signal = ?, error = ?, ended_at = ?
    WHERE job = ? AND number = ? AND ended_at IS NULL
"""
SETTLE_JOB = """
    UPDATE jobs
    SET state = ?, lane = ?, attempts = ?, run_at = ?, exit_code = ?, error = ?, cancelling = 0, updated_at = ?
    WHERE number = ? AND state = 'processing'
"""
GET_TRAITS = "SELECT queue, priority FROM jobs WHERE number = ?"
GET_STATE_AND_LANE = "SELECT state, lane FROM jobs WHERE number = ?"
UPDATE_JOB = """
    UPDATE jobs SET state = ?, lane = ?, attempts = ?, run_at = ?, cancelling = ?, updated_at = ? WHERE number = ?
"""
NUMBERS_IN_STATE = """
    SELECT number FROM jobs INDEXED BY jobs_by_state WHERE state = ? AND number > ? ORDER BY number LIMIT ?
"""
GET_DELETABLE = "SELECT state, lane, last_attempt, environment FROM jobs WHERE number = ?"
DELETE_ATTEMPTS = "DELETE FROM attempts WHERE job = ?"
DELETE_JOB = "DELETE FROM jobs WHERE number = ?"
DELETE_ENVIRONMENT = """
    DELETE FROM environments
    WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_by_environment WHERE environment = ?1)
"""
SHIFT_WAITING = "UPDATE jobs INDEXED BY jobs_by_state SET run_at = run_at + ? WHERE state IN ('pending', 'failed')"
SET_SETTING = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
UNSET_SETTING = "DELETE FROM settings WHERE key = ?"
SET_DESIRED_WORKERS = "UPDATE totals SET desired_workers = ? WHERE the_only = 1"
SET_TOTALS = """
    UPDATE totals
    SET pending = ?, processing = ?, completed = ?, failed = ?, dead = ?, cancelled = ?, last_seen_time = ?
    WHERE the_only = 1
"""
ADD_WORKER = "INSERT OR REPLACE INTO workers (id, boot_id, pid, start_ticks, started_at) VALUES (?, ?, ?, ?, ?)"
REMOVE_WORKER = "DELETE FROM workers WHERE id = ?"
