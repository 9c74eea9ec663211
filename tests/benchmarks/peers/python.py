"""huey, and the PyPI package that is named queuectl: from a virtual environment of their own."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.ours import Gate
from tests.benchmarks.peers.base import SLOTS, first_line, run, started, until

_TASKS = """
import fcntl, subprocess
from huey import SqliteHuey

huey = SqliteHuey("bench", filename={database!r})

@huey.task()
def work():
    return subprocess.run(["sh", "-c", "true"]).returncode

@huey.task()
def gate(path):
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return 0

def put(jobs, *gates):
    for _ in range(jobs):
        work()
    for path in gates:
        gate(path)
"""


class Huey:
    """Python functions as tasks, kept in SQLite, run by two processes."""

    name = "huey"
    does_not = (
        "tasks are Python functions; an outcome only where one returns a value; a task is lost if it runs at a crash"
    )

    def __init__(self, venv: Path) -> None:
        self._bin = venv / "bin"

    def version(self) -> str:
        return first_line(self._bin / "python", "-c", "import huey; print(huey.__version__)")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        gate = Gate(directory / "gate")
        gate.close()
        self._prepare(directory)
        self._put(directory, 0, limit, *[str(gate.path)] * SLOTS)
        self._put(directory, jobs, limit)
        with self._consumer(directory):
            until(lambda: self._waiting(directory) == jobs, time.perf_counter() + limit)
            begin = time.perf_counter()
            gate.open()
            until(lambda: self._recorded(directory) == jobs + SLOTS, begin + limit)
            return time.perf_counter() - begin

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        self._prepare(directory)
        self._put(directory, 1, limit)
        with self._consumer(directory):
            until(lambda: self._recorded(directory) == 1, time.perf_counter() + limit)
            begin = time.perf_counter()
            self._put(directory, jobs, limit)
            until(lambda: self._recorded(directory) == jobs + 1, begin + limit)
            return time.perf_counter() - begin

    @staticmethod
    def _prepare(directory: Path) -> None:
        (directory / "bench_tasks.py").write_text(_TASKS.format(database=str(directory / "huey.db")))

    def _put(self, directory: Path, jobs: int, limit: float, *gates: str) -> None:
        # Imported, not run: a task goes by the name of its module.
        call = f"import bench_tasks; bench_tasks.put({jobs}, *{gates!r})"
        run([self._bin / "python", "-c", call], limit=limit, cwd=directory)

    @contextlib.contextmanager
    def _consumer(self, directory: Path) -> Iterator[None]:
        argv: list[str | Path] = [
            self._bin / "huey_consumer",
            "bench_tasks.huey",
            "-k",
            "process",
            "-w",
            str(SLOTS),
            "-d",
            "0.01",
            "-q",
        ]
        with started(argv, cwd=directory, environment={"PYTHONPATH": str(directory)}):
            yield

    @staticmethod
    def _waiting(directory: Path) -> int:
        return _count(directory / "huey.db", "SELECT count(*) FROM task")

    @staticmethod
    def _recorded(directory: Path) -> int:
        return _count(directory / "huey.db", "SELECT count(*) FROM kv")


class PypiQueuectl:
    """The package of the same name: shell commands in SQLite, two polling workers."""

    name = "queuectl (PyPI)"
    does_not = "workers poll; a job that runs for over 5 minutes is started a second time while it runs"

    def __init__(self, venv: Path) -> None:
        self._command = venv / "bin" / "queuectl"

    def version(self) -> str:
        return first_line(self._command, "--version")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        gate = Gate(directory / "gate")
        gate.close()
        self._put(directory, [" ".join(gate.argv())] * SLOTS, limit)
        with self._workers(directory):
            until(lambda: self._in_state(directory, "processing") == SLOTS, time.perf_counter() + limit)
            self._put(directory, ["true"] * jobs, limit)
            begin = time.perf_counter()
            gate.open()
            until(lambda: self._in_state(directory, "completed") == jobs + SLOTS, begin + limit)
            return time.perf_counter() - begin

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        self._put(directory, ["true"], limit)
        with self._workers(directory):
            until(lambda: self._in_state(directory, "completed") == 1, time.perf_counter() + limit)
            begin = time.perf_counter()
            self._put(directory, ["true"] * jobs, limit)
            until(lambda: self._in_state(directory, "completed") == jobs + 1, begin + limit)
            return time.perf_counter() - begin

    def _put(self, directory: Path, commands: list[str], limit: float) -> None:
        file = directory / "batch.json"
        file.write_text(json.dumps([{"command": command} for command in commands]))
        run([self._command, "batch", file], limit=limit, environment={"HOME": str(directory)})

    @contextlib.contextmanager
    def _workers(self, directory: Path) -> Iterator[None]:
        argv: list[str | Path] = [self._command, "worker", "start", "--count", str(SLOTS)]
        with started(argv, environment={"HOME": str(directory)}):
            yield

    @staticmethod
    def _in_state(directory: Path, state: str) -> int:
        database = directory / ".queuectl" / "queuectl.db"
        return _count(database, "SELECT count(*) FROM jobs WHERE state = ?", state)


def _count(database: Path, query: str, *values: str) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return int(connection.execute(query, values).fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or locked: to be asked again
        return -1
