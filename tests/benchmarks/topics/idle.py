"""At rest it does nothing: the daemon and 4 workers, heartbeats included."""

from __future__ import annotations

import time

from tests.benchmarks import ours, proc
from tests.benchmarks.context import Context
from tests.benchmarks.figures import Series

WORKERS = 4
SETTLING = 3.0
"""Seconds for what the start leaves to be done."""


def measure(context: Context) -> None:
    """Row `at rest`."""
    cpu = Series(f"daemon and {WORKERS} workers, CPU", "%")
    wakeups = Series(f"daemon and {WORKERS} workers, wake-ups", "/s")
    with ours.running(context.fresh("idle"), WORKERS) as target:
        target.drain(WORKERS)
        pids = target.pids()
        time.sleep(min(SETTLING, context.sizes.idle))
        for _ in range(2):
            seconds, switches, begin = proc.cpu_seconds(pids), proc.switches(pids), time.monotonic()
            time.sleep(context.sizes.idle / 2)
            passed = time.monotonic() - begin
            cpu.values.append((proc.cpu_seconds(pids) - seconds) / passed * 100)
            wakeups.values.append((proc.switches(pids) - switches) / passed)
    context.findings.value("idle.cpu", cpu)
    context.findings.value("idle.wakeups", wakeups)
