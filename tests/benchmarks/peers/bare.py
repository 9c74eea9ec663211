"""xargs: no queue at all, the fastest that processes can be started two at a time."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.peers.base import SLOTS, first_line, numbers, run


def version() -> str:
    return first_line("xargs", "--version")


def rate(directory: Path, jobs: int) -> float:
    """Jobs a second of `xargs -P2 -n1 sh -c true`."""
    lines = numbers(directory / "lines", jobs)
    begin = time.perf_counter()
    run(["xargs", f"-P{SLOTS}", "-n1", "sh", "-c", "true"], stdin=lines, limit=600)
    return jobs / (time.perf_counter() - begin)
