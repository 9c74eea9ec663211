"""Commands of jobs that several tests give their daemons, and what these tell of themselves."""

from __future__ import annotations

from pathlib import Path

from tests.harness import lines_of, wait_for

FOREVER = "while :; do sleep 0.05; done"


def family(pids: Path) -> str:
    """A job with a child, a child in a session of its own, and an orphan of that kind; three PIDs."""
    sleeper = f"sh -c 'echo $$ >> {pids}; exec sleep 1000'"
    return f"echo $$ >> {pids}; setsid {sleeper} & (setsid {sleeper} &); {FOREVER}"


def pids_in(path: Path, count: int) -> list[int]:
    """What a job has written to a file, once it is at least `count` lines."""
    wait_for(lambda: len(lines_of(path)) >= count, f"{count} lines in {path.name}")
    return [int(line) for line in lines_of(path)]
