"""The targets, in one table: the runner judges by it, the report and the tests read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One figure that has to be on the right side of a bound.

    Attributes:
        name: what the topics call it.
        what: for the report.
        bound: the worst allowed value; with `above`, just not allowed any more.
        at_least: whether more is better.
        unit: of figure and bound; `x` is a ratio of medians of the same run.
        above: the bound itself is not enough.
    """

    name: str
    what: str
    bound: float
    at_least: bool
    unit: str = "x"
    above: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` is good enough."""
        if self.above:
            return value > self.bound if self.at_least else value < self.bound
        return value >= self.bound if self.at_least else value <= self.bound

    def wanted(self) -> str:
        """The bound as people write it."""
        sign = {(True, False): "≥", (True, True): ">", (False, False): "≤", (False, True): "<"}
        return f"{sign[self.at_least, self.above]} {self.bound:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was asked for, and the checks that it means."""

    what: str
    target: str
    checks: tuple[Check, ...]


def _at_least(name: str, what: str, bound: float, *, above: bool = False) -> Check:
    return Check(name, what, bound, at_least=True, above=above)


def _at_most(name: str, what: str, bound: float, unit: str = "x") -> Check:
    return Check(name, what, bound, at_least=False, unit=unit)


TARGETS = (
    Row(
        "drain: 5,000 x `sh -c true`, all recorded, with the best worker count for 2 cores",
        ">= 0.75 of `xargs -P2 sh -c true`; above every peer",
        (
            _at_least("drain.xargs", "drain, of `xargs -P2`", 0.75),
            _at_least("drain.peers", "drain, of the fastest peer", 1.0, above=True),
        ),
    ),
    Row(
        "enqueue and run, both in the time, bulk file",
        ">= 0.70 of the same",
        (_at_least("through.xargs", "enqueue and run, of `xargs -P2`", 0.70),),
    ),
    Row(
        "bulk enqueue, 100,000 jobs by `queuectl enqueue --file` (whole process)",
        ">= 0.25 of a bare `sqlite3.executemany` of the same rows into the same schema",
        (_at_least("bulk.sqlite", "bulk enqueue, of `executemany`", 0.25),),
    ),
    Row(
        "one durable enqueue over an open connection, p50",
        "<= 2.5 x one bare fsynced SQLite commit",
        (_at_most("durable.commit", "one durable enqueue, of a bare commit", 2.5),),
    ),
    Row(
        "64 connections enqueueing one at a time",
        ">= 10 x the rate of one connection",
        (_at_least("connections.64", "64 connections, of one", 10.0),),
    ),
    Row(
        "`queuectl enqueue` as a process",
        '<= 1.5 x `python -c "import click"`',
        (_at_most("command.click", "`queuectl enqueue`, of `import click`", 1.5),),
    ),
    Row(
        "the client's start: `queuectl enqueue -- true` as a process, no worker",
        "<= 2.3 x `python -c pass`",
        (_at_most("command.python", "`queuectl enqueue -- true`, of `python -c pass`", 2.3),),
    ),
    Row(
        "from enqueue to the job's first instruction, idle worker, p50",
        "<= 3 x a bare `sh -c` spawn",
        (_at_most("latency.spawn", "enqueue to first instruction, of a bare spawn", 3.0),),
    ),
    Row(
        "drain with 1,000,000 jobs waiting, in 1 and in 100 queues",
        ">= 0.9 of the rate with 1,000 waiting",
        (
            _at_least("scale.drain.1", "drain with very many waiting in 1 queue, of few", 0.9),
            _at_least("scale.drain.100", "drain with very many waiting in 100 queues, of few", 0.9),
        ),
    ),
    Row(
        "`status`, `show`, `list` (first page), `enqueue` with 1,000,000 jobs",
        "<= 1.5 x the time with none",
        (
            _at_most("scale.status", "`status` with very many, of few", 1.5),
            _at_most("scale.show", "`show` with very many, of few", 1.5),
            _at_most("scale.list", "`list` with very many, of few", 1.5),
            _at_most("scale.enqueue", "`enqueue` with very many, of few", 1.5),
        ),
    ),
    Row(
        "daemon resident memory with 1,000,000 jobs waiting",
        "<= 64 MB",
        (_at_most("memory.daemon", "the daemon, resident", 64.0, "MB"),),
    ),
    Row("an idle worker (PSS)", "<= 10 MB", (_at_most("memory.worker", "an idle worker, PSS", 10.0, "MB"),)),
    Row(
        "at rest, 4 workers: CPU, wake-ups of all processes",
        "<= 0.1 % of a core, <= 2 a second",
        (
            _at_most("idle.cpu", "CPU at rest", 0.1, "%"),
            _at_most("idle.wakeups", "wake-ups at rest", 2.0, "/s"),
        ),
    ),
    Row(
        "200,000 jobs through with retention on",
        "memory, descriptors and database size flat over the second half",
        (
            _at_most("soak.memory", "memory, last quarter of third", 1.05),
            _at_most("soak.descriptors", "descriptors, last quarter of third", 1.05),
            _at_most("soak.database", "database, last quarter of third", 1.05),
        ),
    ),
    Row(
        "start of the daemon with 1,000,000 jobs in the database",
        "<= 2 x with none",
        (_at_most("start.million", "start with very many, of none", 2.0),),
    ),
)

CHECKS = {check.name: check for row in TARGETS for check in row.checks}
