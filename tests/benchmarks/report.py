"""docs/benchmarks.md, made of the table of targets and the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import Findings, Series, number
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.targets import CHECKS, TARGETS, Check, Row
from tests.benchmarks.topics.drain import BARE

CHART = "benchmarks.svg"
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Compared:
    """Who was compared with.

    Attributes:
        name: what people call it.
        version: as it tells it.
        does_not: what queuectl does and it does not.
    """

    name: str
    version: str
    does_not: str


def render(
    findings: Findings,
    sizes: Sizes,
    machine: Mapping[str, str],
    peers: Sequence[Compared],
    left_out: Mapping[str, str],
    *,
    chart: bool,
) -> str:
    """The whole page.

    Args:
        findings: what was measured.
        sizes: how much was done.
        machine: what it ran on, by name of the property.
        peers: those that were there.
        left_out: why others were not, by name.
        chart: whether one was drawn beside it.
    """
    parts = [
        _head(sizes),
        _targets(findings, sizes),
        _details(findings),
        _peers(findings, peers, left_out, chart=chart),
        _machine(machine, peers),
        _notes(findings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(sizes: Sizes) -> str:
    size = (
        ""
        if sizes.name == "full"
        else "\n\n**A quick look with small sizes: the figures of this page are no more than an indication.**"
    )
    return f"""# Benchmarks

This page is written by `make bench`; what is said about the figures, what was tried and where the limits are, is in
[performance.md](performance.md). To run it again: `make bench` (on a machine that does nothing else; how long it took
is below), or `make bench QUICK=1` (under 3 minutes, smaller sizes). It ends with status 1 where a target is missed.
`BENCH_PEERS="parallel huey"` chooses whom to compare with, `BENCH_TOPICS="drain idle"` what to measure (then nothing is
written here), `BENCH_DIR=` the directory to work in, which must be on a real disk.

All values are medians with the least and the greatest in brackets. What is divided by each other was measured in the
same run, in turns.{size}"""


def _targets(findings: Findings, sizes: Sizes) -> str:
    lines = ["## Targets", "", "| what | target | measured | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.what} | {row.target} | {_measured(findings, row)} | {_verdict(findings, row)} |" for row in TARGETS
    ]
    if sizes.name != "full":
        lines += [
            "",
            (
                f"With {sizes.drain:,} jobs for the drain, {sizes.bulk:,} in bulk, {sizes.million:,} for a million,"
                f" {sizes.soak:,} with retention."
            ),
        ]
    missed = findings.missed()
    named = "; ".join(CHECKS[name].what for name in missed)
    lines += ["", f"Missed: {named}." if missed else "All targets are met."]
    return "\n".join(lines)


def _measured(findings: Findings, row: Row) -> str:
    return "; ".join(_value(findings, check) for check in row.checks)


def _value(findings: Findings, check: Check) -> str:
    figure = findings.figures.get(check.name)
    return NOT_MEASURED if figure is None else f"{number(figure.value)} {check.unit}"


def _verdict(findings: Findings, row: Row) -> str:
    missed = findings.missed()
    return "**missed**" if any(check.name in missed for check in row.checks) else "met"


def _details(findings: Findings) -> str:
    lines = [
        "## What the ratios are made of",
        "",
        "| check | bound | value | ours | against |",
        "| --- | --- | --- | --- | --- |",
    ]
    for check in CHECKS.values():
        figure = findings.figures.get(check.name)
        ours = against = "-"
        if figure is not None:
            ours = _series(figure.ours)
            against = _series(figure.against) if figure.against else "-"
        lines.append(f"| {check.what} | {check.wanted()} | {_value(findings, check)} | {ours} | {against} |")
    if findings.faults:
        lines += ["", *(f"- Not measured: {name}: {why}" for name, why in findings.faults.items())]
    return "\n".join(lines)


def _series(series: Series) -> str:
    return f"{series.name}: {series.text()}"


def _peers(findings: Findings, peers: Sequence[Compared], left_out: Mapping[str, str], *, chart: bool) -> str:
    lines = ["## Peers", ""]
    if chart:
        lines += [f"![Jobs a second]({CHART})", ""]
    lines += [
        (
            "All do the same: so many times `sh -c true`, two at a time. In *drain* the jobs wait before the time"
            " begins; some can't do that, because a job that waits there is a process. `xargs` has no queue: it is the"
            " bound."
        ),
        "",
        f"| who | drain | of `{BARE}` | enqueue and run | of `{BARE}` | what it does not do |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lacks = {peer.name: peer.does_not for peer in peers} | {BARE: "no queue, no record of an outcome", "queuectl": ""}
    for name, lack in [(BARE, lacks.pop(BARE)), ("queuectl", lacks.pop("queuectl")), *lacks.items()]:
        cells = [cell for what in ("drain", "through") for cell in _rate(findings.rates.get(what, []), name)]
        lines.append(f"| {name} | {' | '.join(cells)} | {lack} |")
    lines += ["", *(f"- {name} is left out: {why}." for name, why in left_out.items())]
    return "\n".join(lines).rstrip()


def _rate(group: Sequence[Series], name: str) -> tuple[str, str]:
    by_name = {series.name: series for series in group if series.values}
    if name not in by_name or BARE not in by_name:
        return "-", "-"
    return by_name[name].text(), f"{by_name[name].median / by_name[BARE].median:.2f}"


def _machine(machine: Mapping[str, str], peers: Sequence[Compared]) -> str:
    lines = ["## Machine and versions", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in machine.items()]
    lines += [f"| {peer.name} | {peer.version} |" for peer in peers]
    return "\n".join(lines)


def _notes(findings: Findings) -> str:
    if not findings.notes:
        return ""
    return "\n".join(["## Remarks on this run", "", *(f"- {note}" for note in findings.notes)])
