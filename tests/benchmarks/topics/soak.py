"""Very many jobs through with retention on: nothing grows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.benchmarks import ours, proc
from tests.benchmarks.context import Context
from tests.benchmarks.figures import Series, number, say

BACKLOG = 1000
"""Jobs that wait at the most: as many as one call puts in."""

LOOK = 0.25
"""Seconds between two looks."""


@dataclass(slots=True)
class _Looks:
    """One value a look, and how many jobs were through by then."""

    through: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    database: list[float] = field(default_factory=list)


def measure(context: Context) -> None:
    """Row `200,000 jobs through with retention on`."""
    jobs = context.sizes.soak
    looks = _Looks()
    with ours.running(context.fresh("soak"), context.workers) as target:
        target.wire.call("config.set", key="keep_completed_count", value=context.sizes.kept)
        begin = time.monotonic()
        _run(target, jobs, looks)
        say(f"({jobs:,} jobs through in {time.monotonic() - begin:.0f} s)")
    for name, unit, values in (
        ("memory", "MB", looks.memory),
        ("descriptors", "open", looks.descriptors),
        ("database", "MB", looks.database),
    ):
        quarters = (
            _between(looks, values, jobs * 0.50, jobs * 0.75),
            _between(looks, values, jobs * 0.75, jobs),
        )
        if name == "descriptors":
            # The fewest: what is open for a moment while a job is started is no leak; a leak is there at each look.
            quarters = ([min(quarters[0])], [min(quarters[1])])
        third = Series(f"{name}, third quarter", unit, quarters[0])
        last = Series(f"{name}, last quarter", unit, quarters[1])
        context.findings.ratio(f"soak.{name}", last, third)
        context.findings.notes.append(
            f"Soak, {name} as the jobs went through, in tenths: {', '.join(number(v) for v in _tenths(values))} {unit}."
        )


def _run(target: ours.Queue, jobs: int, looks: _Looks) -> None:
    put, through = 0, 0
    next_look = 0.0
    pids = target.pids()
    while through < jobs:
        counts = target.wire.call("status.get")["counts"]
        waiting = counts["pending"] + counts["processing"]
        through = put - waiting
        if put < jobs and waiting < BACKLOG:
            batch = min(BACKLOG, jobs - put)
            target.put(batch)
            put += batch
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + LOOK
            looks.through.append(through)
            looks.memory.append(sum(proc.resident(pid) for pid in pids))
            looks.descriptors.append(sum(proc.descriptors(pid) for pid in pids))
            looks.database.append(
                sum(path.stat().st_size for path in target.daemon.state_dir.glob("queue.db*")) / proc.MEGABYTE
            )
        time.sleep(ours.LOOK)


def _between(looks: _Looks, values: list[float], first: float, last: float) -> list[float]:
    found = [value for through, value in zip(looks.through, values, strict=True) if first <= through <= last]
    # So few jobs that no look fell into this quarter: the nearest one counts.
    return found or [values[min(range(len(values)), key=lambda place: abs(looks.through[place] - last))]]


def _tenths(values: list[float]) -> list[float]:
    return [values[place * (len(values) - 1) // 10] for place in range(11)]
