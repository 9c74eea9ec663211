"""What the kernel tells of processes. All of it is /proc; see proc(5)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

MEGABYTE = 1_000_000
_TICK = 1 / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MB in memory (VmRSS)."""
    return _kilobytes(Path(f"/proc/{pid}/status").read_text(), "VmRSS") * 1024 / MEGABYTE


def proportional(pid: int) -> float:
    """MB in memory, what is shared with others divided among them (PSS)."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") * 1024 / MEGABYTE


def descriptors(pid: int) -> int:
    """How many are open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - no Path object for each


def cpu_seconds(pids: Iterable[int]) -> float:
    """What all threads of the processes have used so far.

    By the scheduler's nanoseconds where it tells them: clock ticks of 10 ms would be too coarse for processes at rest.
    """
    total = 0.0
    for pid in pids:
        precise = 0.0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                precise += int((task / "schedstat").read_text().split()[0]) / 1e9
        total += precise or _ticks(pid) * _TICK
    return total


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime


def switches(pids: Iterable[int]) -> int:
    """How often all threads of the processes were woken or preempted so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                text = (task / "status").read_text()
                total += sum(
                    int(count) for count in re.findall(r"^(?:non)?voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)
                )
    return total


def _kilobytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    assert found is not None, f"the kernel does not tell {name}"
    return int(found[1])
