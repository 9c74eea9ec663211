"""The daemon's start, until it answers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tests.benchmarks import ours
from tests.benchmarks.context import Context
from tests.benchmarks.figures import alternate
from tests.harness import Daemon

LOOK = 0.001
"""Seconds between two attempts to reach it."""


def measure(context: Context) -> None:
    """Row `start of the daemon`."""
    with contextlib.ExitStack() as stack:
        many = _daemon(stack, context, context.database(context.sizes.million))
        none = _daemon(stack, context, None)
        series = alternate(
            max(context.sizes.rounds, 3),
            {
                f"start with {context.sizes.million:,} jobs": ("ms", lambda: _start(many)),
                "start with none": ("ms", lambda: _start(none)),
            },
        )
    context.findings.ratio("start.million", *series)


def _daemon(stack: contextlib.ExitStack, context: Context, database: Path | None) -> Daemon:
    directory = context.fresh("start")
    state = directory / "state"
    state.mkdir(parents=True, mode=0o700)
    if database is not None:
        ours.copy(database, state / "queue.db")
    daemon = Daemon(directory)
    stack.callback(daemon.clean_up)
    _start(daemon)  # the first one makes what is not there yet
    return daemon


def _start(daemon: Daemon) -> float:
    """Milliseconds from the exec to the first answer; it is stopped again."""
    begin = time.perf_counter()
    daemon.spawn()
    while True:
        try:
            daemon.call("server.info")
            break
        except OSError:
            assert daemon.process is not None
            assert daemon.process.poll() is None, daemon.log.read_text()
            time.sleep(LOOK)
    seconds = time.perf_counter() - begin
    daemon.stop()
    return seconds * 1000
