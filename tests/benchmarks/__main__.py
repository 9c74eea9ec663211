"""`make bench`: measures us and our peers, writes docs/benchmarks.md and its chart, and judges by the targets.

From the environment: QUICK=1 (smaller sizes), BENCH_PEERS and BENCH_TOPICS (words, all if not given), BENCH_DIR (where
to work: on a real disk), BENCH_OUT (where to write; docs/ if not given), BENCH_SIZE (full, quick, tiny).

Exit status: 0 all targets met; 1 one was missed or not measured, and it says which; 2 wrong usage.
"""

from __future__ import annotations

import compileall
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.benchmarks import machine, report
from tests.benchmarks.context import Context
from tests.benchmarks.figures import Findings, number, say
from tests.benchmarks.peers import bare, install
from tests.benchmarks.sizes import SIZES
from tests.benchmarks.targets import CHECKS
from tests.benchmarks.topics import drain, enqueue, idle, latency, memory, scale, soak, startup
from tests.harness import ROOT, RefusedError

TOPICS: dict[str, Callable[[Context], None]] = {
    "drain": drain.measure,
    "enqueue": enqueue.measure,
    "latency": latency.measure,
    "idle": idle.measure,
    "startup": startup.measure,
    "scale": scale.measure,
    "memory": memory.measure,
    "soak": soak.measure,
}

PACKAGES = ("protocol/queuectl_protocol", "queuectld", "queuectl_client")


class UsageError(Exception):
    """The environment says something that can't be."""


def main() -> int:
    try:
        return _run()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


def _run() -> int:
    quick = os.environ.get("QUICK", "") not in {"", "0"}
    size = os.environ.get("BENCH_SIZE") or ("quick" if quick else "full")
    [size] = _words("BENCH_SIZE", size, SIZES)
    topics = _words("BENCH_TOPICS", os.environ.get("BENCH_TOPICS", ""), TOPICS)
    names = _words("BENCH_PEERS", os.environ.get("BENCH_PEERS", ""), install.SOURCES)
    begin = time.monotonic()
    _compile()
    found, left_out = install.get(names if "drain" in topics else [])
    left_out |= {install.SOURCES[name].make().name: "not asked for" for name in install.SOURCES if name not in names}
    with tempfile.TemporaryDirectory(prefix="queuectl-bench-", dir=os.environ.get("BENCH_DIR") or "/var/tmp") as place:
        context = Context(SIZES[size], Path(place), Findings(), [peer for peer, _ in found])
        described = machine.describe(context.directory)
        for topic in topics:
            _measure(context, topic)
    seconds = time.monotonic() - begin
    everything = len(topics) == len(TOPICS)
    out = os.environ.get("BENCH_OUT") or (str(ROOT / "docs") if everything else "")
    if out:
        compared = [report.Compared(peer.name, version, peer.does_not) for peer, version in found]
        described |= {"xargs": bare.version(), "the run took": f"{seconds:.0f} s"}
        _write(Path(out), context, described, compared, left_out)
    return _judge(context.findings, topics, everything=everything, seconds=seconds)


def _compile() -> None:
    """As pip does with what it installs, only not in an editable way: it is the installed program that is measured."""
    for package in PACKAGES:
        if not compileall.compile_dir(ROOT / package, quiet=1):
            raise UsageError(f"can't compile {package}")


def _measure(context: Context, topic: str) -> None:
    say(f"--- {topic}")
    begin = time.monotonic()
    try:
        TOPICS[topic](context)
    except (AssertionError, OSError, subprocess.SubprocessError, RefusedError) as error:
        # The others are worth having all the same; what was not measured counts as missed.
        traceback.print_exc()
        context.findings.faults[topic] = str(error) or type(error).__name__
    say(f"({topic} took {time.monotonic() - begin:.0f} s)")


def _write(
    out: Path,
    context: Context,
    described: dict[str, str],
    compared: list[report.Compared],
    left_out: dict[str, str],
) -> None:
    chart = any(series.values for group in context.findings.rates.values() for series in group)
    out.mkdir(parents=True, exist_ok=True)
    if chart:
        from tests.benchmarks.chart import draw

        (out / report.CHART).write_text(draw(context.findings.rates))
    page = report.render(context.findings, context.sizes, described, compared, left_out, chart=chart)
    (out / "benchmarks.md").write_text(page)
    say(f"written: {out / 'benchmarks.md'}")


def _judge(findings: Findings, topics: list[str], *, everything: bool, seconds: float) -> int:
    # Of a part of the topics, only what they measured, or should have, can be missed.
    missed = [name for name in findings.missed() if everything or name in findings.figures]
    for name in missed:
        check, figure = CHECKS[name], findings.figures.get(name)
        value = "it was not measured" if figure is None else f"{number(figure.value)} {check.unit}"
        print(f"MISSED {check.what}: {value}, wanted {check.wanted()}")
    for topic, why in findings.faults.items():
        print(f"FAILED {topic}: {why}")
    met = len(findings.figures) - sum(name in findings.figures for name in missed)
    print(f"{met} of {len(findings.figures)} figures met their targets, in {seconds:.0f} s ({', '.join(topics)})")
    return 1 if missed or findings.faults else 0


def _words(variable: str, given: str, allowed: Iterable[str]) -> list[str]:
    """The words of a variable; all that are allowed, if there is none."""
    known = list(allowed)
    words = re.split(r"[\s,]+", given.strip()) if given.strip() else known
    for word in words:
        if word not in known:
            raise UsageError(f"{variable}: there is no `{word}`; there are {', '.join(known)}")
    return words


if __name__ == "__main__":
    sys.exit(main())
