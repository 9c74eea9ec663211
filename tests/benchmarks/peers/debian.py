"""GNU parallel, task-spooler and nq, as Debian packages them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.benchmarks.peers.base import LOOK, SLOTS, TooSlowError, first_line, numbers, run, started


class Parallel:
    """A line is a job; the queue is its input."""

    name = "GNU parallel"
    does_not = "no queue beside its input: no daemon, nothing can be added from elsewhere; joblog not synced to disk"

    def version(self) -> str:
        return first_line("parallel", "--version")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        return self.through(directory, jobs, limit)

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        lines = numbers(directory / "lines", jobs)
        log = directory / "joblog"
        begin = time.perf_counter()
        # It runs each line by a shell itself: with this one, that is `sh -c true`.
        run(
            ["parallel", "--will-cite", f"-j{SLOTS}", "--joblog", log, "true {}"],
            stdin=lines, limit=limit, environment={"PARALLEL_SHELL": "/bin/sh", "HOME": str(directory)},
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        recorded = len(log.read_text().splitlines()) - 1
        if recorded != jobs:
            raise OSError(f"parallel recorded {recorded} of {jobs} jobs")
        return seconds


class TaskSpooler:
    """A server in memory, a client process for each job that waits."""

    name = "task-spooler"
    does_not = "the queue is in memory, lost with the server; a waiting job is a process; no retries, no timeout"

    def version(self) -> str:
        return first_line("tsp", "-V")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        return None  # its waiting jobs are connected processes, of which it takes about a thousand

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        environment = {
            "TS_SOCKET": str(directory / "tsp"),
            "TS_SLOTS": str(SLOTS),
            "TS_MAXFINISHED": str(jobs + 1),
            "TMPDIR": str(directory),
        }
        lines = numbers(directory / "lines", jobs)
        begin = time.perf_counter()
        try:
            run(["xargs", "-n1", "tsp", "sh", "-c", "true"], stdin=lines, limit=limit, environment=environment)
            while self._unfinished(environment):
                if time.perf_counter() - begin > limit:
                    raise TooSlowError
                time.sleep(LOOK)
            return time.perf_counter() - begin
        finally:
            run(["tsp", "-K"], limit=10, environment=environment)

    @staticmethod
    def _unfinished(environment: dict[str, str]) -> bool:
        done = subprocess.run(
            ["tsp", "-l"], env=environment | {"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
        )
        return b" queued " in done.stdout or b" running " in done.stdout


class Nq:
    """No server: each waiting job is a process that waits for the locks of those before it."""

    name = "nq"
    does_not = (
        "one job at a time a directory (here: two directories); a waiting job is a process; no retries, no timeout"
    )

    def version(self) -> str:
        return first_line("dpkg-query", "--show", "--showformat=${Version}\n", "nq")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        return None  # every job begins to wait by itself, as a process

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        lanes = []
        for lane in range(SLOTS):
            place = directory / f"lane{lane}"
            place.mkdir()
            lanes.append((place, numbers(directory / f"lines{lane}", jobs // SLOTS)))
        begin = time.perf_counter()
        with (
            started(["xargs", "-n1", "nq", "-q", "sh", "-c", "true"], stdin=lanes[0][1], cwd=lanes[0][0]) as first,
            started(["xargs", "-n1", "nq", "-q", "sh", "-c", "true"], stdin=lanes[1][1], cwd=lanes[1][0]) as second,
        ):
            for process in (first, second):
                _wait(process, begin + limit)
            for place, _ in lanes:
                run(["nq", "-w"], limit=begin + limit - time.perf_counter(), cwd=place)
        return time.perf_counter() - begin


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.perf_counter()))
    except subprocess.TimeoutExpired:
        raise TooSlowError from None
