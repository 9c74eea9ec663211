"""Jobs a second: those that wait, and those that come by a bulk file; against xargs and the peers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import ours
from tests.benchmarks.context import Context
from tests.benchmarks.figures import Series, alternate, number, say
from tests.benchmarks.peers import bare
from tests.benchmarks.peers.base import Peer, TooSlowError

COUNTS = (2, 4, 6, 8, 12)
"""Workers to try: a worker that waits for its commit leaves its core to another."""

OURS = "queuectl"
BARE = "xargs -P2"


def measure(context: Context) -> None:
    """Rows `drain` and `enqueue and run`."""
    context.workers = _best_count(context)
    directory = context.fresh("drain")
    with ours.running(directory, context.workers) as own:
        jobs = context.sizes.drain
        file = ours.job_file(directory / "jobs", jobs)
        drain, through, xargs = alternate(
            context.sizes.rounds,
            {
                f"{OURS} drain": ("jobs/s", lambda: own.drain(jobs)),
                f"{OURS} through": ("jobs/s", lambda: own.through(file, jobs)),
                BARE: ("jobs/s", lambda: bare.rate(directory, jobs)),
            },
        )
        context.findings.ratio("drain.xargs", drain, xargs)
        context.findings.ratio("through.xargs", through, xargs)
        _against_peers(context, own, file)
    for name, series in (("drain", drain), ("through", through)):
        context.findings.rates[name] = [
            Series(BARE, "jobs/s", xargs.values),
            Series(OURS, "jobs/s", series.values),
            *context.findings.rates.get(name, []),
        ]


def _best_count(context: Context) -> int:
    rates: dict[int, list[float]] = {count: [] for count in COUNTS}
    with contextlib.ExitStack() as stack:
        queues = {count: stack.enter_context(ours.running(context.fresh("count"), count)) for count in COUNTS}
        for _ in range(2):
            for count, candidate in queues.items():
                rates[count].append(candidate.drain(max(context.sizes.drain // 2, 20)))
    best = max(COUNTS, key=lambda count: max(rates[count]))
    tried = ", ".join(f"{count}: {number(max(values))}/s" for count, values in rates.items())
    context.findings.notes.append(f"Workers tried for the drain ({tried}); the best count is {best}.")
    say(context.findings.notes[-1])
    return best


def _against_peers(context: Context, own: ours.Queue, file: Path) -> None:
    """The peers in turns with ourselves, so that the comparison holds for the same minutes."""
    jobs = context.sizes.drain
    again = Series(OURS, "jobs/s")
    drains = {peer.name: Series(peer.name, "jobs/s") for peer in context.peers}
    throughs = {peer.name: Series(peer.name, "jobs/s") for peer in context.peers}
    for _ in range(context.sizes.peer_rounds):
        for peer in context.peers:
            for series, method in ((drains[peer.name], peer.drain), (throughs[peer.name], peer.through)):
                if (rate := _rate(context, peer, method, jobs)) is not None:
                    series.values.append(rate)
            again.values.append(own.drain(jobs))
    context.findings.rates["drain"] = [series for series in drains.values() if series.values]
    context.findings.rates["through"] = [series for series in throughs.values() if series.values]
    # Where jobs run as they come, the rate with their coming is the only one there is.
    comparable = [drains[name] if drains[name].values else throughs[name] for name in drains]
    fastest = max((series for series in comparable if series.values), key=lambda series: series.median, default=None)
    if fastest is None:
        context.findings.faults["drain.peers"] = "no peer is there to compare with"
    else:
        context.findings.ratio("drain.peers", again, fastest)


def _rate(context: Context, peer: Peer, method: Callable[[Path, int, float], float | None], jobs: int) -> float | None:
    """Jobs a second, or None: it can't do that."""
    directory = context.fresh("peer")
    directory.mkdir()
    limit = context.sizes.peer_limit
    try:
        seconds = method(directory, jobs, limit)
    except TooSlowError:
        note = f"{peer.name} was given up after {limit:g} s for {jobs:,} jobs: its rate is below the one shown."
        if note not in context.findings.notes:
            context.findings.notes.append(note)
        seconds = limit
    except (OSError, subprocess.SubprocessError) as error:
        context.findings.notes.append(f"{peer.name} failed: {error}")
        return None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if seconds is not None:
        say(f"{peer.name}, {method.__name__}: {number(jobs / seconds)} jobs/s")
    return None if seconds is None else jobs / seconds
