"""No statement of the running store reads a whole table, and the hot ones do a fixed number of steps."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest

from queuectl_protocol.jobs import JobState
from queuectld.store.sqlite import SqliteStore, statements
from queuectld.store.sqlite.connection import open_raw
from tests.store.jobs import NOW, end, new_job, next_due, next_ready, put

STATEMENTS: dict[str, str] = {
    name: text
    for name, text in vars(statements).items()
    if name.isupper() and not name.startswith("_") and isinstance(text, str)
} | {f"INSERT_{count}_JOBS": text for count, text in statements.INSERT_JOBS.items()}

WHOLE_BUT_TINY = {"GET_SETTINGS", "GET_WORKERS", "GET_LANES"}
"""All rows are wanted: a handful of them; of the lanes once, when the store is opened."""
SORTED = {"GET_WORKERS"}

INDEXES = {
    "FIND_ID": "jobs_by_id",
    "FIND_PREFIX": "jobs_by_id",
    "GET_NUMBER_AND_DIGEST": "jobs_by_id",
    "FIRST_WAITING": "jobs_waiting",
    "GET_LANES": "jobs_waiting",
    "REMOVE_EMPTY_LANE": "jobs_waiting",
    "LIST_STATE": "jobs_by_state",
    "LIST_QUEUE": "jobs_by_queue",
    "LIST_STATE_THEN_QUEUE": "jobs_by_state",
    "LIST_QUEUE_THEN_STATE": "jobs_by_queue",
    "NUMBERS_IN_STATE": "jobs_by_state",
    "GET_RUNNING": "jobs_by_state",
    "DELETE_ENVIRONMENT": "jobs_by_environment",
    "SHIFT_WAITING": "jobs_by_state",
}


def plan(store: SqliteStore, statement: str) -> list[str]:
    parameters = max(statement.count("?"), 1) if "?1" not in statement else 1
    values = (None,) * (parameters if "?" in statement else 0)
    return [row[3] for row in store._db.rows("EXPLAIN QUERY PLAN " + statement, values)]


_ROWS_OF_AN_INSERT = re.compile(r"\d+ CONSTANT ROWS?|\d+-ROW VALUES CLAUSE")
"""What SQLite calls them, until 3.45 and from 3.46 on."""


def full_scans(steps: list[str]) -> list[str]:
    """Those that read a whole table or index."""
    return [step for step in steps if "SCAN" in step and not _ROWS_OF_AN_INSERT.search(step)]


def test_a_full_scan_is_known_from_the_rows_of_an_insert() -> None:
    found = ["SCAN jobs", "SCAN j USING COVERING INDEX jobs_by_state", "SCAN TABLE jobs"]
    inserts = ["SCAN 1 CONSTANT ROW", "SCAN 27 CONSTANT ROWS", "SCAN 27-ROW VALUES CLAUSE"]
    assert full_scans([*found, *inserts, "SEARCH jobs USING INDEX jobs_by_id (id=?)"]) == found


def test_the_statements_are_found() -> None:
    assert len(STATEMENTS) > 30
    assert set(INDEXES) | WHOLE_BUT_TINY | SORTED <= set(STATEMENTS)


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_full_scan_and_no_sort(sqlite: SqliteStore, name: str) -> None:
    steps = plan(sqlite, STATEMENTS[name])
    if name not in WHOLE_BUT_TINY:
        assert not full_scans(steps), steps
    if name not in SORTED:
        assert not [step for step in steps if "TEMP B-TREE" in step], steps


@pytest.mark.parametrize("name", sorted(INDEXES))
def test_the_index_is_the_one_it_was_made_for(sqlite: SqliteStore, name: str) -> None:
    (first, *_) = [step for step in plan(sqlite, STATEMENTS[name]) if INDEXES[name] in step] or [""]
    assert re.search(rf"SEARCH .*USING (COVERING )?INDEX {INDEXES[name]} \(", first), plan(sqlite, STATEMENTS[name])


def test_no_statement_stands_outside_of_the_list() -> None:
    """What this file explains is all there is; elsewhere stand only transactions and pragmas."""
    for module in ("store.py", "reading.py"):
        source = (Path(statements.__file__).parent / module).read_text()
        assert not re.findall(r'"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE)\b', source), module


class Steps:
    """Counts what SQLite does, so that a test need not look at a clock."""

    def __init__(self, store: SqliteStore) -> None:
        self._raw = store._db._raw
        self.count = 0

    def __enter__(self) -> Self:
        self._raw.set_progress_handler(self._one, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.set_progress_handler(None, 1)

    def _one(self) -> int:
        self.count += 1
        return 0


def steps_of_a_lease(store: SqliteStore) -> int:
    with Steps(store) as steps:
        ready = next_ready(store, NOW)
    assert ready is not None
    assert ready.id == "ready"
    return steps.count


def test_many_delayed_jobs_of_high_priority_cost_nothing(sqlite: SqliteStore) -> None:
    put(sqlite, new_job("ready"), new_job("delayed", priority=5, run_at=NOW + 9))
    few = steps_of_a_lease(sqlite)
    put(sqlite, *(new_job(f"d{i}", priority=5, run_at=NOW + 10 + i) for i in range(3000)))
    assert steps_of_a_lease(sqlite) <= few
    with Steps(sqlite) as steps:
        sqlite.begin()
        sqlite.start_attempt(1, 1, "t", "w", NOW)
        assert next_due(sqlite, NOW) == NOW + 9
        sqlite.rollback()
    assert steps.count < 300


def test_delayed_jobs_each_of_a_priority_of_its_own_are_walked_through_once(sqlite: SqliteStore) -> None:
    put(sqlite, new_job("ready"), *(new_job(f"d{i}", priority=i + 1, run_at=NOW + 10 + i) for i in range(3000)))
    assert steps_of_a_lease(sqlite) > 3000
    assert steps_of_a_lease(sqlite) < 200
    put(sqlite, new_job("low", priority=-1), new_job("later", priority=77, run_at=NOW + 99))
    assert steps_of_a_lease(sqlite) < 200
    sqlite.begin()
    ready = next_ready(sqlite, NOW)
    assert ready is not None
    sqlite.start_attempt(ready.number, 1, "t", "w", NOW)
    end(sqlite, ready.number, 1)
    sqlite.commit()
    with Steps(sqlite) as steps:
        ready = next_ready(sqlite, NOW)
    assert ready is not None
    assert ready.id == "low"
    assert steps.count < 200


def test_when_the_next_of_many_priorities_is_due_costs_one_look(sqlite: SqliteStore) -> None:
    put(sqlite, *(new_job(f"d{i}", priority=i, run_at=NOW + 10 + i) for i in range(3000)))
    assert next_ready(sqlite, NOW) is None  # the first look walks through all of them
    with Steps(sqlite) as steps:
        for late in range(40):
            assert next_due(sqlite, NOW + 9 + late) == NOW + 10 + late
            ready = next_ready(sqlite, NOW + 10 + late)
            assert ready is not None
            assert ready.id == f"d{late}"
            sqlite.begin()
            sqlite.start_attempt(ready.number, 1, "t", "w", NOW + 10 + late)
            sqlite.commit()
            assert next_ready(sqlite, NOW + 10 + late) is None
    assert steps.count < 40 * 1000, "3,000 looks would be 30,000 steps, each time"


def test_a_lease_and_its_end_cost_the_same_however_many_jobs_there_are(sqlite: SqliteStore) -> None:
    def cycle() -> int:
        with Steps(sqlite) as steps:
            sqlite.begin()
            ready = next_ready(sqlite, NOW)
            assert ready is not None
            sqlite.start_attempt(ready.number, 1, "t", "w", NOW)
            assert sqlite.running_attempt(ready.number) is not None
            end(sqlite, ready.number, 1)
            sqlite.commit()
        return steps.count

    put(sqlite, *(new_job(f"a{i}") for i in range(10)))
    few = cycle()
    put(sqlite, *(new_job(f"b{i}", priority=i % 7) for i in range(3000)))
    assert cycle() <= few + 20


@pytest.mark.parametrize(
    ("state", "queue"), [(None, None), (JobState.DEAD, None), (None, "rare"), (JobState.DEAD, "rare")]
)
def test_a_page_costs_what_it_shows(sqlite: SqliteStore, state: JobState | None, queue: str | None) -> None:
    put(sqlite, *(new_job(f"r{i}", queue="rare") for i in range(5)))
    sqlite.begin()
    for number in range(1, 6):
        sqlite.update(number, state=JobState.DEAD, attempts=0, run_at=NOW, cancelling=False, now=NOW)
    sqlite.commit()
    put(sqlite, *(new_job(f"j{i}") for i in range(3000)))
    with Steps(sqlite) as steps:
        page, _ = sqlite.jobs(state, queue, 5, None)
    assert len(page) == 5
    assert steps.count < 1000


def test_no_statement_was_left_open(sqlite: SqliteStore, tmp_path: Path) -> None:
    """A reader at rest holds no snapshot: a checkpoint gets through to the end, and the log is cut to nothing."""
    reader = sqlite.reader()
    put(sqlite, *(new_job(f"j{i}") for i in range(200)))
    reader.jobs(None, None, 5, None)
    reader.resolve("j")
    reader.job(1, env=True)
    reader.counts()
    put(sqlite, new_job("later"))
    with closing(open_raw(tmp_path / "queue.db", "rw")) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
    reader.close()
