"""Our side: a real daemon in a directory of its own, with a gate that holds its workers until all is ready."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.harness import Daemon, Wire, wait_for

COMMAND = "true"
"""Run by `/bin/sh -c`: the work that all are measured with."""

FIRST = 1_000_000
"""The highest priority: a gate comes before everything that waits."""

GATE = "gate"
BATCH = 1000
LOOK = 0.003
"""Seconds between two looks at the counts near the end: under a hundredth of the shortest round."""


class Gate:
    """A file lock: those who ask for their share of it wait until it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def open(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def argv(self) -> list[str]:
        """A command that ends when the gate is open."""
        return ["flock", "--shared", str(self.path), "true"]


class Queue:
    """A daemon with its workers, and one connection to it."""

    def __init__(self, daemon: Daemon, workers: int) -> None:
        self.daemon = daemon
        self.workers = workers
        self.gate = Gate(daemon.directory / "gate")
        self._is_held = False
        self.wire = Wire(daemon.connect())
        if workers:
            self.start_workers(workers)

    def start_workers(self, count: int) -> None:
        """Start so many, and wait until they wait for work."""
        self.workers = count
        self.wire.call("worker.start", count=count)
        self.daemon.wait_workers(count)

    def start_held(self, count: int) -> None:
        """Start so many where jobs are waiting, and have them wait at the gate from the beginning."""
        self.workers = count
        self._close_gate()
        self.wire.call("worker.start", count=count)
        wait_for(self._held, "all workers to be at the gate")

    def waiting(self) -> int:
        count: int = self.wire.call("status.get")["counts"]["pending"]
        return count

    def completed(self) -> int:
        count: int = self.wire.call("status.get")["counts"]["completed"]
        return count

    def put(self, jobs: int, **fields: Any) -> str:
        """Enqueue so many jobs; the last one's id."""
        last = ""
        while jobs:
            batch = min(jobs, BATCH)
            ids: list[str] = self.wire.call("job.enqueue", jobs=[{"command": COMMAND, **fields}] * batch)["ids"]
            jobs, last = jobs - batch, ids[-1]
        return last

    def hold(self) -> None:
        """Have all workers wait at the gate, before whatever else is waiting; they may do so already."""
        if not self._is_held:
            self._close_gate()
        wait_for(self._held, "all workers to be at the gate")

    def _close_gate(self) -> None:
        self.gate.close()
        self._is_held = True
        gate = {"argv": self.gate.argv(), "priority": FIRST, "label": GATE}
        self.wire.call("job.enqueue", jobs=[gate] * self.workers)

    def _let_go(self) -> float:
        self._is_held = False
        begin = time.perf_counter()
        self.gate.open()
        return begin

    def _held(self) -> bool:
        found: Sequence[dict[str, Any]] = self.wire.call("worker.list")["workers"]
        jobs = [worker["job"] for worker in found if worker["state"] == "busy"]
        return len(jobs) == self.workers and all(self.wire.call("job.get", id=job)["label"] == GATE for job in jobs)

    def wait_completed(self, count: int) -> int:
        """Look until so many are completed; how many are."""
        while (found := self.completed()) < count:
            time.sleep(LOOK)
        return found

    def drain(self, jobs: int) -> float:
        """Jobs a second, of so many that were waiting when the workers were let go, until all are recorded."""
        self.hold()
        last = self.put(jobs)
        goal = self.completed() + self.workers + jobs
        begin = self._let_go()
        self.wire.call("job.wait", ids=[last])
        self.wait_completed(goal)
        return jobs / (time.perf_counter() - begin)

    def drain_some(self, jobs: int) -> float:
        """Jobs a second, of the first `jobs` of those that wait; the others are held back again."""
        self.hold()
        before = self.completed() + self.workers
        begin = self._let_go()
        done = self.wait_completed(before + jobs) - before
        rate = done / (time.perf_counter() - begin)
        self.hold()
        return rate

    def through(self, file: Path, jobs: int) -> float:
        """Jobs a second of a bulk file, from the start of `queuectl enqueue --file` until all are recorded."""
        goal = self.completed() + jobs
        begin = time.perf_counter()
        last = enqueue_file(self.daemon, file)
        self.wire.call("job.wait", ids=[last])
        self.wait_completed(goal)
        return jobs / (time.perf_counter() - begin)

    def pids(self) -> list[int]:
        """The daemon's and the workers'."""
        return [self.daemon.pid, *(worker["pid"] for worker in self.daemon.workers())]

    def close(self) -> None:
        self.gate.open()
        self.wire.__exit__()


@contextlib.contextmanager
def running(directory: Path, workers: int, database: Path | None = None) -> Iterator[Queue]:
    """A daemon that is ready, on a copy of `database` if one is given; all of it is gone afterwards."""
    state = directory / "state"
    state.mkdir(parents=True, mode=0o700)
    if database is not None:
        copy(database, state / "queue.db")
    daemon = Daemon(directory)
    try:
        queue = Queue(daemon.start(), workers)
        try:
            yield queue
        finally:
            queue.close()
    finally:
        daemon.clean_up()


def copy(source: Path, target: Path) -> None:
    """Where the file system can, without copying the bytes."""
    subprocess.run(["cp", "--reflink=auto", source, target], check=True)


def queuectl() -> list[str]:
    """The command as it is installed beside this Python."""
    script = Path(sys.executable).with_name("queuectl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "queuectl_client"]


def enqueue_file(daemon: Daemon, file: Path) -> str:
    """Enqueue a bulk file as a user does; the last job's id."""
    done = subprocess.run(
        [*queuectl(), "--socket", str(daemon.socket), "enqueue", "--file", str(file)],
        env=daemon.environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.rstrip().rpartition("\n")[2]


def job_file(path: Path, jobs: int) -> Path:
    """A bulk file of so many jobs."""
    line = json.dumps({"command": COMMAND}) + "\n"
    path.write_text(line * jobs)
    return path
