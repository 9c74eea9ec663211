"""Others who do the same work: so many times `sh -c true`, two at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

SLOTS = 2
LOOK = 0.01
"""Seconds between two looks at how far a peer is."""


class TooSlowError(Exception):
    """It was not done within the limit."""


class Peer(Protocol):
    """One of them.

    Attributes:
        name: what people call it.
        does_not: what our users get and its users do not, for the report.
    """

    name: str
    does_not: str

    def version(self) -> str:
        """As it tells it.

        Raises:
            OSError, subprocess.SubprocessError: it does not run here.
        """

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        """Seconds for jobs that were waiting before; None where jobs can't wait without being run.

        Raises:
            TooSlowError: after `limit` seconds.
        """

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        """Seconds from the first job put in until all have been run.

        Raises:
            TooSlowError: after `limit` seconds.
        """


def numbers(path: Path, jobs: int) -> Path:
    """A file with a line a job, for those who make a job of each line."""
    path.write_text("".join(f"{turn}\n" for turn in range(jobs)))
    return path


def run(
    argv: Sequence[str | Path],
    *,
    limit: float,
    stdin: Path | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run it to its end, silently.

    Raises:
        TooSlowError: after `limit` seconds; it was killed with its process group.
    """
    with started(argv, stdin=stdin, environment=environment, cwd=cwd) as process:
        try:
            status = process.wait(max(limit, 0.01))
        except subprocess.TimeoutExpired:
            raise TooSlowError(str(argv[0])) from None
    if status != 0:
        raise subprocess.CalledProcessError(status, [str(word) for word in argv])


@contextlib.contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    stdin: Path | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, whose process group is gone afterwards."""
    with (stdin or Path(os.devnull)).open("rb") as source:
        process = subprocess.Popen(
            argv, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})}, cwd=cwd, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        # Its PID is its group's number; while it is not reaped, nobody else can have it.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], bool], deadline: float) -> None:
    """Look until it is so.

    Raises:
        TooSlowError: it is not so at `deadline` (time.perf_counter).
    """
    while not condition():
        if time.perf_counter() > deadline:
            raise TooSlowError
        time.sleep(LOOK)


def first_line(*argv: str | Path) -> str:
    """What a `--version` prints first."""
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    return (done.stdout or done.stderr).strip().splitlines()[0]
