"""What one person waits for: the command itself, and from the enqueue to the job's first instruction."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import queuectl_client
import queuectl_protocol
from tests.benchmarks import ours
from tests.benchmarks.context import Context
from tests.benchmarks.figures import alternate


def measure(context: Context) -> None:
    """Rows `queuectl enqueue as a process`, `client's start` and `from enqueue to the job's first instruction`."""
    _compile()
    with ours.running(context.fresh("start of the client"), 0) as target:
        _start(context, target)
    with ours.running(context.fresh("latency"), 1) as target:
        _command(context, target)
        _first_instruction(context, target)


def _compile() -> None:
    """Make the bytecode that an installation comes with; in a checkout, the environment may forbid to write it."""
    for package in (queuectl_client, queuectl_protocol):
        compileall.compile_dir(Path(package.__path__[0]), quiet=1)


def _start(context: Context, target: ours.Queue) -> None:
    """Without a worker, which would run the job while the next process starts."""
    enqueue = [*ours.queuectl(), "enqueue", "--", "true"]
    environment = {**target.daemon.environment, "QUEUECTL_SOCKET": str(target.daemon.socket)}
    series = alternate(
        max(20, context.sizes.calls),
        {
            "queuectl enqueue -- true": ("ms", lambda: _process(enqueue, environment)),
            "python -c pass": ("ms", lambda: _process([sys.executable, "-c", "pass"], environment)),
        },
    )
    context.findings.ratio("command.python", *series)


def _command(context: Context, target: ours.Queue) -> None:
    enqueue = [*ours.queuectl(), "--socket", str(target.daemon.socket), "enqueue", "-c", ours.COMMAND]
    environment = target.daemon.environment
    series = alternate(
        max(5, context.sizes.calls // 5),
        {
            "queuectl enqueue": ("ms", lambda: _process(enqueue, environment)),
            "import click": ("ms", lambda: _process([sys.executable, "-c", "import click"], environment)),
        },
    )
    context.findings.ratio("command.click", *series)


def _process(argv: Sequence[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begin) * 1000


def _first_instruction(context: Context, target: ours.Queue) -> None:
    """The first instruction is a byte into a pipe, by the shell itself; it is the same for both."""
    fifo = target.daemon.directory / "first"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    command = f"echo > {fifo}"
    calls = context.sizes.calls

    def enqueued() -> float:
        number = target.wire.send("job.enqueue", jobs=[{"command": command}])
        os.read(reading, 1)
        arrived = time.perf_counter()
        reply = target.wire.receive()
        assert reply["id"] == number, reply
        target.wire.call("job.wait", ids=reply["result"]["ids"])
        return arrived

    def bare() -> float:
        child = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
        os.read(reading, 1)
        arrived = time.perf_counter()
        os.waitpid(child, 0)
        return arrived

    def idle() -> None:
        target.daemon.wait_workers(1)

    series = alternate(
        context.sizes.rounds,
        {
            "enqueue to first instruction, p50": ("ms", lambda: _p50(calls, idle, enqueued)),
            "bare sh -c spawn, p50": ("ms", lambda: _p50(calls, idle, bare)),
        },
    )
    os.close(reading)
    Path(fifo).unlink()
    context.findings.ratio("latency.spawn", *series)


def _p50(calls: int, before: Callable[[], None], call: Callable[[], float]) -> float:
    """The median, in milliseconds, of so many calls, each of which tells when the first instruction was seen."""
    times = []
    for _ in range(calls):
        before()
        begin = time.perf_counter()
        times.append(call() - begin)
    return statistics.median(times) * 1000
