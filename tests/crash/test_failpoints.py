"""SIGKILL at every step, one by one: nothing acknowledged is lost, nothing runs twice at a time or once too often.

Each test brings a daemon to a failpoint, sees the process die there, and lets a daemon without failpoints go on.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectld.failpoints import FAILPOINTS, MARK_VARIABLE, VARIABLE
from tests.crash.witness import QUICK, Witness, check_jobs, check_left, offer
from tests.harness import CHECKOUT, PATIENCE, ROOT, Daemon, is_running, lines_of, processes_with, wait_for

COMMITS = ("commit.before", "commit.after")


def _around(name: str) -> list[str]:
    """The failpoint inside a transaction, and both sides of the COMMIT of this very transaction."""
    return [name, *(f"{name}>{commit}" for commit in COMMITS)]


WORK = [
    "enqueue.asked:2",
    *_around("enqueue.inserted:2"),
    "enqueue.committed:2",
    *_around("lease.chosen"),
    "lease.committed",
    "finish.asked:2",
    *_around("finish.settled"),
    "finish.committed",
]
CANCEL = [*_around("cancel.marked"), "cancel.committed"]
LOST = [
    "lost.noticed",
    "lost.proven",
    *_around("lost.settled"),
    "lost.committed",
    "lost.cleared",
    "lost.unlocked",
]
START = [
    "start.locked",
    "start.opened",
    "start.bound",
    "recovery.adopted",
    "recovery.settling",
    "recovery.recovered",
    "recovery.listening",
    "attach.done",
]
REEXECUTION = ["reexec.asked", "reexec.quiet", "reexec.executed", "reexec.taken"]
STOP = ["stop.asked", "stop.workers", "stop.answered", "stop.closed", "stop.clean"]
REMOVAL = ["purge.committed", "retention.committed"]
BACKUP = ["backup.copied"]
WORKER = ["worker.leased", "worker.spawning", "worker.spawned", "worker.ended", "worker.telling"]
TELLING = ["worker.told"]
RECORD = ["worker.record.written", "worker.record.synced", "worker.record.renamed", "worker.recorded"]
TOLD_LATE = ["worker.confirmed", "worker.cleared"]

ALL = [*WORK, *CANCEL, *LOST, *START, *REEXECUTION, *STOP, *REMOVAL, *BACKUP, *WORKER, *TELLING, *RECORD, *TOLD_LATE]


def test_every_failpoint_is_somewhere_in_the_code_and_is_tried_here() -> None:
    hits = []
    for path in (ROOT / "queuectld").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.hit":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: the name of a failpoint is written out"
                hits.append(str(argument.value))
    assert sorted(hits) == sorted(FAILPOINTS)
    tried = {step.partition(":")[0] for chain in ALL for step in chain.split(">")}
    assert tried == set(FAILPOINTS)


def test_a_failpoint_that_is_not_there_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "queuectld", "--version"],
        env={**os.environ, VARIABLE: "no.such.place", "PYTHONPATH": CHECKOUT},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no.such.place" in done.stderr
    assert "Traceback" not in done.stderr


class Trial:
    """A daemon with a failpoint, and later without."""

    def __init__(self, directory: Path) -> None:
        self.daemon = Daemon(directory)
        self.witness = Witness(directory)
        self.mark = directory / "mark"

    def arm(self, failpoint: str) -> None:
        self.daemon.environment[VARIABLE] = failpoint
        self.daemon.environment[MARK_VARIABLE] = str(self.mark)

    def disarm(self) -> None:
        del self.daemon.environment[VARIABLE]

    def start(self, workers: int = 1) -> None:
        self.daemon.start("--workers", str(workers))
        for key, value in QUICK.items():
            self.daemon.call("config.set", key=key, value=value)
        self.daemon.wait_workers(workers)

    def start_armed(self, failpoint: str, workers: int = 1) -> None:
        self.arm(failpoint)
        self.start(workers)

    def died(self) -> int:
        """The PID of the process that came to the failpoint, once it is dead."""
        (text,) = wait_for(lambda: lines_of(self.mark), "a process to come to the failpoint")
        wait_for(lambda: not is_running(int(text)), "the process at the failpoint to be dead")
        return int(text)

    def daemon_died(self) -> None:
        assert self.died() == self.daemon.pid
        assert self.daemon.process is not None
        assert self.daemon.process.wait(PATIENCE) == -signal.SIGKILL
        self.disarm()

    def go_on(self) -> None:
        """A daemon as if nothing had been."""
        self.daemon.start()

    def worker_pid(self, job_id: str) -> int:
        return self.daemon.worker_of(job_id)

    def _worker_pids(self) -> set[int]:
        return set(processes_with("\0queuectld.worker\0")) & set(processes_with(str(self.daemon.state_dir)))

    def finish(self, *job_ids: str, lost: int | None = 0) -> dict[str, dict[str, Any]]:
        """Everything ends as it must; then the daemon stops, and nothing is left of it."""
        for job_id in job_ids:
            self.daemon.wait_state(job_id, "completed", "dead", "cancelled")
        jobs = check_jobs(self.daemon, self.witness, lost=lost)
        # One that a daemon had started and not recorded when it died ends by itself.
        wait_for(lambda: self._worker_pids() <= {worker["pid"] for worker in self.daemon.workers()}, "strangers to go")
        assert self.daemon.stop() == 0
        assert processes_with(str(self.daemon.directory)) == []
        check_left(self.daemon)
        return jobs


@pytest.fixture
def trial(directory: Path) -> Iterator[Trial]:
    made = Trial(directory)
    yield made
    made.daemon.clean_up()


def _three_jobs(witness: Witness) -> list[dict[str, Any]]:
    return [
        witness.job("good"),
        witness.job("bad", exit_code=7, max_retries=2),
        witness.job("slow", "sleep 0.05"),
    ]


def _check_three(jobs: dict[str, dict[str, Any]]) -> None:
    assert {(name, job["state"], job["exit_code"]) for name, job in jobs.items()} == {
        ("good", "completed", 0),
        ("bad", "dead", 7),
        ("slow", "completed", 0),
    }


@pytest.mark.parametrize("failpoint", WORK)
def test_a_daemon_that_dies_at_work_loses_nothing_and_repeats_nothing(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    jobs = _three_jobs(trial.witness)
    acknowledged = offer(trial.daemon, jobs)
    trial.daemon_died()
    trial.go_on()
    for job_id in acknowledged:
        trial.daemon.job(job_id)
    # The same jobs once more: what is there already, acknowledged or not, is no second job.
    assert offer(trial.daemon, jobs) == ["good", "bad", "slow"]
    done = trial.finish("good", "bad", "slow")
    _check_three(done)
    # The worker lives on, so not one execution is lost, whatever the daemon died of.
    assert {name: trial.witness.count("begin", name) for name in done} == {"good": 1, "bad": 2, "slow": 1}


@pytest.mark.parametrize("failpoint", CANCEL)
def test_a_cancel_holds_once_it_is_committed(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("running"), trial.witness.job("waiting")])
    trial.witness.wait_begun("running")
    with contextlib.suppress(OSError):
        trial.daemon.call("job.cancel", ids=["running", "waiting"])
    trial.daemon_died()
    trial.go_on()
    if failpoint in ("cancel.marked", "cancel.marked>commit.before"):
        assert trial.daemon.job("running")["state"] == "processing"
        assert not trial.daemon.job("running")["cancelling"]
        assert trial.daemon.job("waiting")["state"] == "pending"
        trial.daemon.call("job.cancel", ids=["running", "waiting"])
    jobs = trial.finish("running", "waiting")
    assert {job["state"] for job in jobs.values()} == {"cancelled"}
    assert [attempt["outcome"] for attempt in jobs["running"]["history"]] == ["cancelled"]
    assert jobs["waiting"]["history"] == []


@pytest.mark.parametrize("failpoint", LOST)
def test_a_daemon_that_dies_over_a_dead_worker_settles_it_once(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job")])
    trial.witness.wait_begun("job")
    os.kill(trial.worker_pid("job"), signal.SIGKILL)
    trial.daemon_died()
    trial.go_on()
    trial.witness.wait_begun("job", 2)
    trial.witness.open_gate("job")
    job = trial.finish("job", lost=1)["job"]
    assert [attempt["outcome"] for attempt in job["history"]] == ["lost", "completed"]


@pytest.mark.parametrize("failpoint", [*START, *LOST])
def test_a_daemon_that_dies_at_its_start_can_be_started_again(trial: Trial, failpoint: str) -> None:
    trial.start(3)
    witness, daemon = trial.witness, trial.daemon
    offer(daemon, [witness.gated("lives"), witness.gated("ended", exit_code=7, max_retries=1)])
    gone = [] if failpoint in LOST else ["gone"]  # so that it is the one with an exit record that it dies over
    offer(daemon, [witness.gated(name) for name in gone])
    for name in ("lives", "ended", *gone):
        witness.wait_begun(name)
    workers = {name: trial.worker_pid(name) for name in ("ended", *gone)}
    daemon.kill()
    witness.open_gate("ended")
    wait_for(lambda: list((daemon.state_dir / "exits").glob("*.json")), "the exit record")
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    trial.arm(failpoint)
    daemon.spawn()
    trial.daemon_died()
    trial.go_on()
    lives = daemon.job("lives")
    assert lives["state"] == "processing"
    for name in gone:
        witness.wait_begun(name, 2)
    for name in ("lives", *gone):
        witness.open_gate(name)
    jobs = trial.finish("lives", "ended", *gone, lost=len(gone))
    assert jobs["lives"]["history"][0]["started_at"] == lives["history"][0]["started_at"]
    assert [attempt["outcome"] for attempt in jobs["lives"]["history"]] == ["completed"]
    assert (jobs["ended"]["state"], jobs["ended"]["exit_code"]) == ("dead", 7)


@pytest.mark.parametrize("failpoint", REEXECUTION)
def test_a_daemon_that_dies_while_it_re_executes_takes_nothing_along(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job", exit_code=7, max_retries=1), trial.witness.job("next")])
    trial.witness.wait_begun("job")
    os.kill(trial.daemon.pid, signal.SIGHUP)
    trial.daemon_died()
    trial.witness.open_gate("job")
    trial.go_on()
    job = trial.finish("job", "next")["job"]
    assert (job["state"], job["exit_code"], trial.witness.count("begin", "job")) == ("dead", 7, 1)


@pytest.mark.parametrize("failpoint", STOP)
def test_a_daemon_that_dies_while_it_stops_counts_no_attempt(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job", max_retries=1)])
    trial.witness.wait_begun("job")
    os.kill(trial.daemon.pid, signal.SIGTERM)
    trial.daemon_died()
    trial.witness.open_gate("job")
    trial.go_on()
    job = trial.finish("job")["job"]
    assert job["state"] == "completed"
    expected = ["completed"] if failpoint == "stop.asked" else ["interrupted", "completed"]
    assert [attempt["outcome"] for attempt in job["history"]] == expected


@pytest.mark.parametrize("failpoint", REMOVAL)
def test_a_daemon_that_dies_before_it_has_removed_logs_removes_them_later(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    jobs = [trial.witness.job(f"bad-{number}", "echo said", exit_code=7, max_retries=1) for number in range(3)]
    offer(trial.daemon, [*jobs, trial.witness.job("good", "echo said")])
    for job in jobs:
        trial.daemon.wait_state(job["id"], "dead")
    if failpoint.startswith("purge"):
        with contextlib.suppress(OSError):
            trial.daemon.call("dlq.purge", ids=["bad-0", "bad-1"])
    else:
        trial.daemon.call("config.set", key="keep_dead_count", value=1)
    trial.daemon_died()
    trial.go_on()
    logs = trial.daemon.state_dir / "logs" / "0"
    wait_for(lambda: sorted(path.name for path in logs.iterdir()) == ["3.1.log", "4.1.log"], "the logs to be removed")
    assert set(trial.finish("good", "bad-2")) == {"good", "bad-2"}


@pytest.mark.parametrize("failpoint", BACKUP)
def test_a_backup_that_was_cut_short_is_none_and_can_be_made_again(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    target = trial.daemon.directory / "copy.db"
    with contextlib.suppress(OSError):
        trial.daemon.call("server.backup", path=str(target))
    trial.daemon_died()
    trial.go_on()
    assert not target.exists()
    trial.daemon.call("server.backup", path=str(target))
    assert [path.name for path in target.parent.iterdir() if "copy" in path.name or "backup" in path.name] == [
        "copy.db"
    ]
    trial.finish()


@pytest.mark.parametrize("failpoint", WORKER)
@pytest.mark.parametrize("both", [False, True], ids=["alone", "with its daemon"])
def test_a_worker_that_dies_loses_its_one_attempt(trial: Trial, failpoint: str, *, both: bool) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, _three_jobs(trial.witness))
    assert trial.died() != trial.daemon.pid
    if both:
        trial.daemon.kill()
        trial.disarm()
        trial.go_on()
    assert len(offer(trial.daemon, _three_jobs(trial.witness))) == 3
    jobs = trial.finish("good", "bad", "slow", lost=1)
    _check_three(jobs)
    assert [attempt["outcome"] for attempt in jobs["good"]["history"]] == ["lost", "completed"]
    begun = trial.witness.count("begin", "good")
    if failpoint in ("worker.leased", "worker.spawning"):
        assert begun == 1
    elif failpoint != "worker.spawned":  # there the job may be killed before it could write a word
        assert begun == 2


@pytest.mark.parametrize("failpoint", TELLING)
def test_what_a_worker_has_sent_before_it_died_counts(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job", exit_code=7, max_retries=1)])
    trial.witness.wait_begun("job")
    # So that the daemon learns of both at once: the outcome, and that the worker is dead.
    os.kill(trial.daemon.pid, signal.SIGSTOP)
    trial.witness.open_gate("job")
    assert trial.died() != trial.daemon.pid
    os.kill(trial.daemon.pid, signal.SIGCONT)
    job = trial.finish("job")["job"]
    assert (job["state"], job["exit_code"]) == ("dead", 7)


@pytest.mark.parametrize("failpoint", TOLD_LATE)
def test_a_worker_that_dies_over_a_record_of_no_more_use_leaves_none(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job", exit_code=7, max_retries=1)])
    trial.witness.wait_begun("job")
    trial.daemon.kill()
    trial.disarm()
    trial.witness.open_gate("job")
    wait_for(lambda: list((trial.daemon.state_dir / "exits").glob("*.json")), "the exit record")
    trial.go_on()
    trial.died()
    job = trial.finish("job")["job"]
    assert (job["state"], job["exit_code"]) == ("dead", 7)


@pytest.mark.parametrize("failpoint", RECORD)
def test_a_worker_that_dies_over_its_exit_record(trial: Trial, failpoint: str) -> None:
    trial.start_armed(failpoint)
    offer(trial.daemon, [trial.witness.gated("job", exit_code=7, max_retries=2)])
    trial.witness.wait_begun("job")
    trial.daemon.kill()
    trial.disarm()
    trial.witness.open_gate("job")
    trial.died()
    trial.go_on()
    # Before the record has its name the attempt counts as lost; from then on its outcome counts.
    lost = failpoint in ("worker.record.written", "worker.record.synced")
    job = trial.finish("job", lost=int(lost))["job"]
    assert [attempt["exit_code"] for attempt in job["history"]] == [None if lost else 7, 7]
    assert trial.witness.count("begin", "job") == 2
