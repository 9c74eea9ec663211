"""One storm from its seed to its verdict."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from queuectld.process_tree import cgroups
from tests.crash.storm import jobs
from tests.crash.storm.clients import Client
from tests.crash.storm.killer import Killer
from tests.crash.storm.verdict import FINAL, Evidence, judge
from tests.harness import Daemon, is_running, processes_with, wait_for

CLIENTS = 3
WORKERS = 4
SETTLING = 120.0
"""Seconds without any change after which jobs that are not final count as stuck."""

STARVED = 0.5
"""Seconds that this process may oversleep: beyond, the machine is so busy that a worker's heartbeats may be late."""

FORBIDDEN = re.compile(r"Traceback|never retrieved|not re-executed|is damaged|has a fault|a request failed")
"""What the daemon's log must not say, whatever is killed."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a storm did, and what it found."""

    seed: int
    directory: Path
    """Gone, if there are no violations."""
    violations: list[str]
    text: str


def run_storm(seed: int, kills: int, *, groups: Path | None) -> Report:
    """Let it rage, wait until everything has settled, and judge.

    Args:
        seed: decides the settings, what clients ask for, and what the killer does in which order. At which
            instruction it hits, and so whom it finds, depends on the machine: a run is repeated in kind.
        kills: SIGKILLs to the daemon and its workers.
        groups: a cgroup v2 directory for the attempts, or None for none.
    """
    directory = Path(tempfile.mkdtemp(prefix="qctl-storm-"))
    setup = Random(f"{seed}/setup")
    settings: dict[str, float] = {
        "backoff_base": setup.choice([0, 1]), "backoff_max": 0.3, "heartbeat_interval": 0.2, "heartbeat_timeout": 3,
        "kill_grace": 0.3, "shutdown_timeout": 1,
    }  # fmt: skip
    arguments = ["--workers", str(WORKERS), "--log-level", "debug"]
    if groups is not None:
        arguments += ["--cgroup", str(groups)]
    daemon = Daemon(directory, *arguments)
    jobs.prepare(directory)
    ledger = jobs.Ledger()
    killer = Killer(daemon, ledger, f"{seed}/killer", directory)
    clients = [Client(i, daemon, ledger, Random(f"{seed}/client {i}"), directory) for i in range(CLIENTS)]
    complaints: list[str] = []
    begin = time.monotonic()
    evidence: Evidence | None = None
    sleeper = Sleeper()
    sleeper.start()
    try:
        killer.start_daemon()
        for key, value in settings.items():
            daemon.call("config.set", key=key, value=value)
        for client in clients:
            client.start()
        with _noting(complaints, "the storm"):
            killer.rage(kills)
        with _noting(complaints, "the end of the storm"):
            for client in clients:
                client.stop()
            for client in clients:
                client.join()
            evidence = _collect(daemon, killer, ledger, groups, complaints)
    finally:
        sleeper.stop()
        killer.close()
        daemon.clean_up()
    complaints += [client.fault for client in clients if client.fault]
    complaints += [
        f"the daemon's log says: {line}"
        for line in daemon.log.read_text(errors="replace").splitlines()
        if FORBIDDEN.search(line)
    ]
    silent: set[str] = set()
    if evidence is not None and sleeper.longest > STARVED:
        silent = set(re.findall(r"worker is silent worker=(\w+)", daemon.log.read_text(errors="replace")))
        evidence.disturbed = evidence.disturbed | silent
    violations = judge(evidence) if evidence is not None else complaints
    head = (
        f"kill storm, seed {seed}: {CLIENTS} clients, {WORKERS} workers, attempts held together by "
        f"{'cgroups' if groups else 'subreapers and markers'}, backoff_base {settings['backoff_base']:g}"
    )
    rest = f"  machine   overslept by {sleeper.longest:.2f} s at most"
    if silent:
        rest += f": too busy to blame anyone for the silence of {len(silent)} workers"
    text = "\n".join([head, rest, *_summary(killer, ledger, evidence, time.monotonic() - begin)])
    if violations:
        (directory / "summary").write_text("\n".join([text, *violations]) + "\n")
    else:
        shutil.rmtree(directory)
    return Report(seed, directory, violations, text)


class Sleeper(threading.Thread):
    """Measures how late a process is woken on this machine.

    Attributes:
        longest: seconds.
    """

    def __init__(self) -> None:
        super().__init__(name="sleeper", daemon=True)
        self.longest = 0.0
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            due = time.monotonic() + 0.05
            time.sleep(0.05)
            self.longest = max(self.longest, time.monotonic() - due)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@contextlib.contextmanager
def _noting(complaints: list[str], during: str) -> Iterator[None]:
    """What a part of the storm stumbled over is a violation, and no reason not to look at the rest."""
    try:
        yield
    except (AssertionError, OSError, TimeoutError) as error:
        complaints.append(f"during {during}: {type(error).__name__}: {error}")


def _collect(
    daemon: Daemon, killer: Killer, ledger: jobs.Ledger, groups: Path | None, complaints: list[str]
) -> Evidence:
    assert daemon.process is not None
    if daemon.process.poll() is None:
        killer.stop_cleanly()
    # What was killed last may have left files that the next start removes.
    killer.start_daemon()
    with _noting(complaints, "the settling"):
        _settle(daemon)
    listed = _all_jobs(daemon)
    known = {job["id"]: daemon.job(job["id"]) for job in listed}
    leftovers = _leftovers_while_up(daemon, killer)
    counts = daemon.call("status.get")["counts"]
    with _noting(complaints, "the last stop"):
        status = killer.stop_cleanly()
        assert status == 0, f"the daemon stopped with status {status}"
    leftovers += _leftovers(daemon, groups)
    return Evidence(
        submissions=ledger.submissions,
        jobs=known,
        counts=counts,
        journal=jobs.read_journal(daemon.directory / "journal"),
        disturbed=frozenset(killer.disturbed),
        leftovers=leftovers,
        damage=_damage(daemon.state_dir / "queue.db"),
        complaints=complaints,
    )


def _settle(daemon: Daemon) -> None:
    """Wait until every job is final, as long as anything changes."""
    seen: list[Any] = [None, time.monotonic()]

    def settled() -> bool:
        counts = daemon.call("status.get")["counts"]
        if counts != seen[0]:
            seen[:] = [counts, time.monotonic()]
        assert time.monotonic() - seen[1] < SETTLING, f"nothing goes on any more: {counts}"
        return all(count == 0 for state, count in counts.items() if state not in FINAL)

    wait_for(settled, "every job to be final", patience=3600)


def _all_jobs(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = daemon.call("job.list", limit=1000, **after)
        found += page["jobs"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


def _leftovers_while_up(daemon: Daemon, killer: Killer) -> list[str]:
    """With every job final, the daemon and its workers are all that may be there."""
    found = []
    with contextlib.suppress(AssertionError):  # a worker that was told to go may take a moment
        wait_for(lambda: not killer.job_processes(), "all processes of jobs to be gone", patience=10)
    found += [f"process {one.pid} of a job is left: {_command(one.pid)}" for one in killer.job_processes()]

    def strangers() -> list[str]:
        known = {worker["id"] for worker in daemon.workers()}
        return [f"worker {one.worker} is left, unknown" for one in killer.workers() if one.worker not in known]

    with contextlib.suppress(AssertionError):
        wait_for(lambda: not strangers(), "all unknown workers to be gone", patience=15)
    return found + strangers()


def _leftovers(daemon: Daemon, groups: Path | None) -> list[str]:
    """After the stop: nothing is left that belongs to what is over."""
    found = [
        f"process {pid} is left after the stop: {_command(pid)}"
        for pid in processes_with(str(daemon.directory))
        if is_running(pid)
    ]
    for name, what in (("exits", "exit record"), ("workers", "worker's lock")):
        found += [f"a stale {what} is left: {path.name}" for path in sorted((daemon.state_dir / name).iterdir())]
    if groups is not None:
        found += [
            f"a stale cgroup is left: {path.name}"
            for path in sorted(groups.iterdir())
            # A probe of a process that died is kept where another one has its PID now.
            if path.is_dir() and not (path.name.startswith("probe-") and is_running(int(path.name[6:])))
        ]
    if daemon.socket.exists():
        found.append("the socket's file is left")
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "gone meanwhile"


def _damage(database: Path) -> list[str]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()
    return [f"the database is damaged: {row}" for row in rows if row != "ok"]


def _summary(killer: Killer, ledger: jobs.Ledger, evidence: Evidence | None, took: float) -> list[str]:
    def listed(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counter.most_common())

    sent, acknowledged = len(ledger.submissions), sum(one.acknowledged for one in ledger.submissions.values())
    text = [
        f"  took      {took:.0f} s; longest time without progress {killer.longest_stall:.1f} s",
        f"  kills     {killer.kills}",
        f"  signals   {listed(killer.signals)}",
        f"  actions   {listed(killer.done)}",
        f"  clients   {sent} jobs sent, {acknowledged} acknowledged; {ledger.lost_replies} replies lost",
    ]
    if evidence is not None:
        outcomes = Counter(str(attempt["outcome"]) for job in evidence.jobs.values() for attempt in job["history"])
        lines = Counter(line.word for line in evidence.journal)
        states = Counter(str(job["state"]) for job in evidence.jobs.values())
        text += [
            f"  jobs      {listed(states)}",
            f"  attempts  {outcomes.total()}: {listed(outcomes)}",
            f"  journal   {listed(lines)}",
        ]
    return text


@contextlib.contextmanager
def a_group() -> Iterator[Path | None]:
    """A cgroup v2 directory for the attempts of one storm; None where none can be made."""
    own = cgroups.own_group()
    if own is None or not cgroups.is_usable(own):
        yield None
        return
    group = own / f"queuectl-storm-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        for path in sorted(group.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        group.rmdir()
