"""The pool of workers: started, stopped, killed, stopped in their tracks; and what becomes of their jobs."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Daemon, RefusedError, is_running, lines_of, wait_for
from tests.jobs import FOREVER, family, pids_in

# --- starting and stopping ------------------------------------------------------------------------------------------


def test_a_new_daemon_has_no_workers(daemon: Daemon) -> None:
    assert daemon.call("worker.list") == {"workers": [], "desired": 0}


def test_start_adds_and_list_tells(daemon: Daemon) -> None:
    first = daemon.call("worker.start", count=1)
    more = daemon.call("worker.start", count=2)
    assert (first["desired"], more["desired"], len(more["ids"])) == (1, 3, 2)
    workers = daemon.wait_workers(3)
    assert {worker["id"] for worker in workers} == {*first["ids"], *more["ids"]}
    for worker in workers:
        assert is_running(worker["pid"])
        assert (worker["job"], worker["attempt"]) == (None, None)
    status = daemon.call("status.get")
    assert status["workers"] == daemon.workers()
    assert (status["daemon"]["pid"], status["daemon"]["desired_workers"]) == (daemon.pid, 3)


def test_a_busy_worker_tells_its_job(single: Daemon) -> None:
    job_id = single.enqueue(FOREVER)
    (worker,) = single.wait_workers(1, "busy")
    assert (worker["job"], worker["attempt"]) == (job_id, 1)
    assert worker["job_started_at"] == single.job(job_id)["history"][0]["started_at"]


@pytest.mark.parametrize("count", [0, -1, "two", 4097, 1.5])
def test_a_count_out_of_range_is_refused(daemon: Daemon, count: object) -> None:
    with pytest.raises(RefusedError) as caught:
        daemon.call("worker.start", count=count)
    assert caught.value.kind == "invalid_params"
    assert "count" in str(caught.value)
    assert daemon.call("worker.list")["desired"] == 0


def test_stop_lets_the_current_job_finish(single: Daemon, directory: Path) -> None:
    gate = directory / "gate"
    running = single.enqueue(f"until test -e {gate}; do sleep 0.01; done")
    single.wait_state(running, "processing")
    waiting = single.enqueue("true")
    (worker,) = single.workers()
    assert single.call("worker.stop") == {"ids": [worker["id"]], "desired": 0}
    assert [one["state"] for one in single.workers()] == ["stopping"]
    gate.touch()
    assert single.wait_state(running, "completed")["attempts"] == 1
    wait_for(lambda: not single.workers(), "the worker to be gone")
    assert not is_running(worker["pid"])
    assert single.job(waiting)["state"] == "pending"
    assert single.call("worker.stop") == {"ids": [], "desired": 0}


def test_stop_by_id_leaves_the_others(pool: Daemon) -> None:
    first, second = pool.workers()
    assert pool.call("worker.stop", ids=[first["id"]]) == {"ids": [first["id"]], "desired": 1}
    wait_for(lambda: [one["id"] for one in pool.workers()] == [second["id"]], "one worker to be left")
    with pytest.raises(RefusedError) as caught:
        pool.call("worker.stop", ids=[second["id"], first["id"]])
    assert caught.value.kind == "not_found"
    assert [one["state"] for one in pool.workers()] == ["idle"]


def test_stop_of_one_that_is_named_twice(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start("--workers", "3")
    first, *others = [worker["id"] for worker in daemon.wait_workers(3)]
    assert daemon.call("worker.stop", ids=[first, first]) == {"ids": [first], "desired": 2}
    wait_for(lambda: [worker["id"] for worker in daemon.workers()] == others, "it to be gone")
    assert daemon.call("worker.list")["desired"] == 2


def test_stop_of_one_that_is_just_ending(pool: Daemon) -> None:
    """It is gone already, but its end is not proven yet, for which the daemon lacks descriptors: nobody replaces it."""
    first, second = (worker["id"] for worker in pool.workers())
    pids = {worker["id"]: worker["pid"] for worker in pool.workers()}
    limits = resource.prlimit(pool.pid, resource.RLIMIT_NOFILE)
    with pool.wire() as wire:
        wire.call("worker.list")
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(pids[first], signal.SIGKILL)
        wait_for(lambda: "Too many open files" in pool.log.read_text(), "the proof to fail")
        assert wire.call("worker.list")["workers"][0]["state"] == "ending"
        assert wire.call("worker.stop", ids=[first]) == {"ids": [first], "desired": 1}
        assert wire.call("worker.stop", ids=[first]) == {"ids": [], "desired": 1}
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, limits)
    wait_for(lambda: [one["id"] for one in pool.workers()] == [second], "the other to be left")


def test_a_worker_that_can_not_be_given_its_limits_leaves_nothing_behind(daemon: Daemon) -> None:
    """Somebody has lowered the daemon's hard limit below the soft one that its starter had."""
    daemon.call("server.info")
    open_before = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft - 1, soft - 1))
    daemon.call("worker.start", count=1)
    (worker,) = daemon.wait_workers(1)
    assert f"{soft - 1}" in Path(f"/proc/{worker['pid']}/limits").read_text()
    daemon.call("worker.stop")
    wait_for(lambda: len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())) <= open_before, "its descriptors to be closed")


def test_stop_of_workers_that_can_not_start(daemon: Daemon) -> None:
    """None of them is there, but another try is due."""
    (daemon.state_dir / "workers").rename(daemon.state_dir / "away")
    daemon.call("worker.start", count=2)
    wait_for(lambda: daemon.log.read_text().count("can't start") >= 2 and not daemon.workers(), "them to fail")
    assert daemon.call("worker.stop") == {"ids": [], "desired": 0}
    (daemon.state_dir / "away").rename(daemon.state_dir / "workers")
    assert daemon.call("worker.start", count=1)["desired"] == 1
    wait_for(lambda: len(daemon.workers()) == 1, "one worker, and not three")


def test_stop_now_puts_the_job_back_and_does_not_count_the_attempt(single: Daemon, directory: Path) -> None:
    job_id = single.enqueue(family(directory / "pids"), max_retries=1)
    pids = pids_in(directory / "pids", 3)
    single.call("worker.stop", now=True)
    job = single.wait_state(job_id, "pending")
    assert (job["attempts"], [one["outcome"] for one in job["history"]]) == (0, ["interrupted"])
    assert not [pid for pid in pids if is_running(pid)]
    single.call("worker.start", count=1)
    wait_for(lambda: len(single.job(job_id)["history"]) == 2, "it to run again")
    assert single.job(job_id)["attempts"] == 1


def test_stop_now_of_a_job_that_ignores_sigterm(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=0.2)
    job_id = single.enqueue(f"trap '' TERM; echo $$ > {directory}/pids; {FOREVER}")
    (pid,) = pids_in(directory / "pids", 1)
    single.call("worker.stop", now=True)
    assert single.wait_state(job_id, "pending")["history"][0]["signal"] == signal.SIGKILL
    assert not is_running(pid)


def test_stop_now_while_jobs_come_and_go(pool: Daemon) -> None:
    """However the stop meets a finish that carries the next attempt, workers stop at once and no job is lost."""
    pool.call("config.set", key="kill_grace", value=3600)
    ids = pool.call("job.enqueue", jobs=[{"command": "true"}] * 300 + [{"command": "sleep 600"}] * 2)["ids"]
    for _ in range(8):
        pool.call("worker.stop", now=True)
        wait_for(lambda: not pool.workers(), "the workers to be gone")
        assert pool.call("status.get")["counts"]["processing"] == 0
        pool.call("worker.start", count=2)
    pool.call("job.cancel", ids=ids[-2:])
    assert {one["state"] for one in pool.call("job.wait", ids=ids[:-2])["jobs"]} == {"completed"}


def test_stop_now_meets_a_job_on_its_way_to_a_worker(pool: Daemon) -> None:
    pool.call("config.set", key="kill_grace", value=3600)
    with pool.wire() as wire:
        for turn in range(20):
            pool.wait_workers(2)
            wire.send("job.enqueue", jobs=[{"command": "sleep 600"}] * 2)
            for _ in range(turn % 5):
                wire.send("server.info")
            wire.send("worker.stop", now=True)
            for _ in range(2 + turn % 5):
                wire.receive()
            wait_for(lambda: not pool.workers(), "the workers to be gone")
            assert pool.call("status.get")["counts"]["processing"] == 0
            ids = [job["id"] for job in pool.call("job.list", state="pending")["jobs"]]
            pool.call("job.cancel", ids=ids)
            pool.call("worker.start", count=2)


def test_the_pool_size_is_restored_at_the_next_start(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.call("worker.start", count=3)
    daemon.call("worker.stop", ids=[daemon.workers()[0]["id"]])
    assert daemon.stop() == 0
    daemon.start()
    daemon.wait_workers(2)
    assert daemon.call("worker.list")["desired"] == 2


def test_the_flag_says_the_size_from_now_on(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start("--workers", "2")
    daemon.wait_workers(2)
    assert daemon.stop() == 0
    daemon.start("--workers", "1")
    daemon.wait_workers(1)
    daemon.stop()
    daemon.start()
    assert daemon.call("worker.list")["desired"] == 1
    daemon.stop()
    daemon.start("--workers", "0")
    assert daemon.call("worker.list") == {"workers": [], "desired": 0}


# --- workers that die -----------------------------------------------------------------------------------------------


def test_a_killed_worker_loses_its_job_which_runs_again_when_the_tree_is_gone(single: Daemon, directory: Path) -> None:
    pids = directory / "pids"
    job_id = single.enqueue(f"test $QUEUECTL_ATTEMPT = 2 || {{ {family(pids)}; }}")
    first = pids_in(pids, 3)
    worker = single.worker_of(job_id)
    os.kill(worker, signal.SIGKILL)
    job = single.wait_state(job_id, "completed")
    assert not [pid for pid in first if is_running(pid)]
    lost, done = job["history"]
    assert (lost["outcome"], lost["error"], lost["exit_code"]) == ("lost", "worker lost", None)
    assert done["started_at"] >= lost["ended_at"]
    assert job["attempts"] == 2
    assert single.wait_workers(1)[0]["pid"] != worker


def test_a_job_that_always_loses_its_worker_is_dead_after_its_attempts(single: Daemon) -> None:
    job_id = single.enqueue(f"kill -KILL $PPID; {FOREVER}", max_retries=2)
    job = single.wait_state(job_id, "dead")
    assert [one["outcome"] for one in job["history"]] == ["lost", "lost"]
    assert job["error"] == "worker lost"
    single.call("job.wait", ids=[single.enqueue("true")])


def test_a_job_that_closed_everything_does_not_outlive_its_worker(single: Daemon, directory: Path) -> None:
    """No lock, no marker, no parent that is known: what a killed worker left is found all the same."""
    pids = directory / "pids"
    hidden = f"setsid env -i sh -c 'exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ >> {pids}; exec sleep 1000'"
    job_id = single.enqueue(f"({hidden} &); {FOREVER}", max_retries=1)
    (pid,) = pids_in(pids, 1)
    os.kill(single.worker_of(job_id), signal.SIGKILL)
    single.wait_state(job_id, "dead")
    assert not is_running(pid)


def test_all_workers_killed_at_once(pool: Daemon, directory: Path) -> None:
    pool.call("worker.start", count=2)
    workers = pool.wait_workers(4)
    ids = pool.call(
        "job.enqueue",
        jobs=[{"command": f"echo x >> {directory}/n; test $QUEUECTL_ATTEMPT = 2 || {FOREVER}"}] * 4,
    )["ids"]
    wait_for(lambda: len(lines_of(directory / "n")) == 4, "all to run")
    for worker in workers:
        os.kill(worker["pid"], signal.SIGKILL)
    assert {one["state"] for one in pool.call("job.wait", ids=ids)["jobs"]} == {"completed"}
    assert len(lines_of(directory / "n")) == 8
    assert not {worker["pid"] for worker in pool.wait_workers(4)} & {worker["pid"] for worker in workers}


def test_an_idle_worker_that_is_killed_is_replaced(single: Daemon) -> None:
    (worker,) = single.workers()
    os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: [one["id"] for one in single.workers()] != [worker["id"]], "the old one to be gone")
    single.wait_workers(1)


def test_a_worker_that_is_told_to_end_by_sigterm(single: Daemon, directory: Path) -> None:
    """As a careful person may do with `kill`: the attempt has ended, and another worker makes the next one."""
    trace = directory / "trace"
    job_id = single.enqueue(f"echo run >> {trace}; test $QUEUECTL_ATTEMPT = 2 || {FOREVER}", max_retries=2)
    worker = single.worker_of(job_id)
    wait_for(lambda: lines_of(trace), "the job to run")
    os.kill(worker, signal.SIGTERM)
    job = single.wait_state(job_id, "completed", "dead")
    assert [one["outcome"] for one in job["history"]] == ["interrupted", "completed"]
    assert job["history"][0]["error"] == "its worker got a signal to end"
    assert job["attempts"] == 2
    assert lines_of(trace) == ["run", "run"]
    assert single.wait_workers(1)[0]["pid"] != worker


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_a_job_that_ends_its_worker_has_no_more_attempts_than_others(
    single: Daemon, directory: Path, number: str
) -> None:
    job_id = single.enqueue(f"echo run >> {directory}/trace; kill -{number} $PPID; sleep 100", max_retries=2)
    job = single.wait_state(job_id, "dead")
    assert [one["outcome"] for one in job["history"]] == [{"TERM": "interrupted", "KILL": "lost"}[number]] * 2
    assert (job["attempts"], lines_of(directory / "trace")) == (2, ["run", "run"])


def test_a_stop_of_the_daemon_and_its_workers_at_once_costs_no_attempt(single: Daemon) -> None:
    """As at the end of a session: everybody gets SIGTERM."""
    job_id = single.enqueue(f"echo begun; {FOREVER}", max_retries=1)
    pid = single.worker_of(job_id)
    wait_for(lambda: "begun" in single.output(job_id), "the job to begin")
    os.kill(single.pid, signal.SIGTERM)
    wait_for(lambda: single.call("server.info")["stopping"], "the daemon to stop")
    os.kill(pid, signal.SIGTERM)
    assert single.process is not None
    assert single.process.wait(PATIENCE) == 0
    single.start("--workers", "0")
    job = single.job(job_id)
    assert (job["state"], job["attempts"], job["history"][0]["error"]) == ("pending", 0, None)


def test_the_daemon_at_rest_uses_no_processor(pool: Daemon) -> None:
    def used() -> float:
        ticks = 0
        for pid in (pool.pid, *(worker["pid"] for worker in pool.workers())):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    pool.enqueue("true", delay=3600)
    before, began = used(), time.monotonic()
    wait_for(lambda: time.monotonic() - began > 1.0, "a second of rest")
    assert used() - before <= 0.05


# --- workers that fall silent ---------------------------------------------------------------------------------------


def impatient(daemon: Daemon) -> None:
    daemon.call("config.set", key="heartbeat_interval", value=0.2)
    daemon.call("config.set", key="heartbeat_timeout", value=1)


def test_a_stopped_worker_is_killed_with_its_job_and_replaced(single: Daemon, directory: Path) -> None:
    pids = directory / "pids"
    job_id = single.enqueue(f"test $QUEUECTL_ATTEMPT = 2 || {{ {family(pids)}; }}")
    first = pids_in(pids, 3)
    worker = single.worker_of(job_id)
    os.kill(worker, signal.SIGSTOP)
    impatient(single)
    job = single.wait_state(job_id, "completed")
    assert [one["outcome"] for one in job["history"]] == ["lost", "completed"]
    assert not [pid for pid in [worker, *first] if is_running(pid)]
    single.wait_workers(1)


def test_a_worker_that_was_stopped_for_less_than_the_timeout_goes_on(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="heartbeat_interval", value=0.2)
    single.call("config.set", key="heartbeat_timeout", value=30)
    gate = directory / "gate"
    job_id = single.enqueue(f"until test -e {gate}; do sleep 0.01; done")
    worker = single.worker_of(job_id)
    os.kill(worker, signal.SIGSTOP)
    gate.touch()
    single.call("job.wait", ids=[job_id], timeout=0.5)
    assert single.job(job_id)["state"] == "processing"
    os.kill(worker, signal.SIGCONT)
    assert single.wait_state(job_id, "completed")["attempts"] == 1


def test_a_daemon_that_was_stopped_itself_kills_nobody(single: Daemon, directory: Path) -> None:
    impatient(single)
    gate = directory / "gate"
    job_id = single.enqueue(f"until test -e {gate}; do sleep 0.01; done")
    worker = single.worker_of(job_id)
    os.kill(single.pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 2.0, "twice the timeout to pass")
    os.kill(single.pid, signal.SIGCONT)
    single.call("job.wait", ids=[job_id], timeout=1.5)
    gate.touch()
    job = single.wait_state(job_id, "completed")
    assert job["attempts"] == 1
    assert single.wait_workers(1)[0]["pid"] == worker


# --- what only workers may say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("worker.heartbeat", {}),
        ("worker.finish", {"ended": {"job": 1, "attempt": 1, "token": "x", "outcome": "completed", "ended_at": 1}}),
        ("worker.attach", {"worker": "w1"}),
    ],
)
def test_others_are_refused_what_only_workers_may_say(single: Daemon, method: str, params: dict[str, object]) -> None:
    job_id = single.enqueue(FOREVER)
    single.wait_state(job_id, "processing")
    with pytest.raises(RefusedError) as caught:
        single.call(method, **params)
    assert caught.value.kind == "forbidden"


def test_nobody_can_attach_in_the_name_of_a_worker(single: Daemon) -> None:
    (worker,) = single.workers()
    with pytest.raises(RefusedError) as caught:
        single.call("worker.attach", worker=worker["id"])
    assert caught.value.kind == "forbidden"
    assert single.workers() == [worker]
