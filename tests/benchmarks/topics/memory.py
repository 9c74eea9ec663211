"""Memory: the daemon with very many jobs, a worker with none."""

from __future__ import annotations

from tests.benchmarks import ours, proc
from tests.benchmarks.context import Context
from tests.benchmarks.figures import Series
from tests.benchmarks.topics.scale import PAGE

WORKERS = 4
WORK = 200
"""Jobs that are run first: what is only used then is in memory afterwards too."""


def measure(context: Context) -> None:
    """Rows `daemon resident memory` and `an idle worker`."""
    daemon = Series(f"the daemon with {context.sizes.million:,} waiting, VmRSS", "MB")
    with ours.running(context.fresh("memory"), 0, context.database(context.sizes.million)) as target:
        target.start_held(WORKERS)
        target.drain_some(WORK)
        for state in ("pending", "completed"):
            target.wire.call("job.list", state=state, limit=PAGE)
        target.wire.call("status.get")
        daemon.values.append(proc.resident(target.daemon.pid))
    worker = Series(f"one of {WORKERS} idle workers, PSS", "MB")
    with ours.running(context.fresh("memory"), WORKERS) as target:
        target.drain(WORK)
        workers = target.daemon.wait_workers(WORKERS)
        worker.values.extend(proc.proportional(found["pid"]) for found in workers)
    context.findings.value("memory.daemon", daemon)
    context.findings.value("memory.worker", worker)
