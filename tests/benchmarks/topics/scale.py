"""With very many jobs waiting it is as fast as with few."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.benchmarks import ours
from tests.benchmarks.context import Context
from tests.benchmarks.figures import alternate
from tests.benchmarks.topics.enqueue import p50

FEW = 1000
RUN = 500
"""Jobs of one round, after which the workers are held back again: so neither side runs dry."""
QUEUES = (1, 100)
PAGE = 100


def measure(context: Context) -> None:
    """Rows `drain with 1,000,000 jobs waiting` and `status, show, list, enqueue`."""
    _drain(context)
    _calls(context)


def _drain(context: Context) -> None:
    """Jobs that wait are all that differs. What was run of few is put in again after the round, not in its time."""
    jobs = min(RUN, context.sizes.million // (2 * context.sizes.rounds))
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(ours.running(context.fresh("few"), context.workers))
        few.hold()
        few.put(FEW)
        many = {
            count: stack.enter_context(
                ours.running(context.fresh("many"), 0, context.database(context.sizes.million, count))
            )
            for count in QUEUES
        }
        for target in many.values():
            target.start_held(context.workers)
        series = alternate(
            context.sizes.rounds,
            {
                f"{FEW:,} waiting": ("jobs/s", lambda: _drain_few(few, jobs)),
                **{
                    f"{context.sizes.million:,} waiting in {count}": ("jobs/s", _drain_some(target, jobs))
                    for count, target in many.items()
                },
            },
        )
    for count, found in zip(QUEUES, series[1:], strict=True):
        context.findings.ratio(f"scale.drain.{count}", found, series[0])


def _drain_few(target: ours.Queue, jobs: int) -> float:
    rate = target.drain_some(jobs)
    target.put(FEW - target.waiting())
    return rate


def _drain_some(target: ours.Queue, jobs: int) -> Callable[[], float]:
    return lambda: target.drain_some(jobs)


def _calls(context: Context) -> None:
    """Over an open connection, where the start of a process hides nothing. A page needs jobs to be a page."""
    calls = context.sizes.calls
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(ours.running(context.fresh("few"), 0))
        few.put(PAGE)
        many = stack.enter_context(ours.running(context.fresh("many"), 0, context.database(context.sizes.million)))
        for name in ("status", "show", "list", "enqueue"):
            found, against = alternate(
                context.sizes.rounds,
                {
                    f"{name} with {context.sizes.million:,}": ("ms", _timed(many, name, calls)),
                    f"{name} with {PAGE}": ("ms", _timed(few, name, calls)),
                },
            )
            context.findings.ratio(f"scale.{name}", found, against)


def _timed(target: ours.Queue, name: str, calls: int) -> Callable[[], float]:
    wire = target.wire
    some = wire.call("job.list", limit=PAGE)["jobs"][PAGE // 2]["id"]
    call: dict[str, Callable[[], object]] = {
        "status": lambda: wire.call("status.get"),
        "show": lambda: wire.call("job.get", id=some),
        "list": lambda: wire.call("job.list", state="pending", limit=PAGE),
        "enqueue": lambda: target.put(1),
    }
    return lambda: p50(calls, call[name])
