"""The bugs that other job queues have had, each with the tests that keep it out of this one.

BUGS is the list; what no other file tests is tested here.
"""

from __future__ import annotations

import ast
import contextlib
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobState, Outcome
from queuectl_protocol.messages import AttemptResult, Lease
from queuectld.core.settings import Settings
from queuectld.queue.finish import finish as finish_attempt
from queuectld.queue.lease import lease as lease_jobs
from queuectld.queue.settle import settle_worker
from queuectld.store.base import Reader, Store
from queuectld.store.sqlite import SqliteReader, SqliteStore
from tests.crash.trace import attached, needs_strace
from tests.harness import ROOT, Daemon, RefusedError, is_running, lines_of, processes_with, wait_for
from tests.store.jobs import NOW, new_job, put, sqlite_store
from tests.store.memory import MemoryStore

BUGS: dict[str, tuple[str, ...]] = {
    "a stale PID file blocks the start": (
        "e2e/test_start.py::test_a_lock_file_with_the_pid_of_a_stranger_does_not_block",
    ),
    "a stale socket blocks the start": (
        "e2e/test_start.py::test_a_killed_daemons_socket_and_lock_do_not_block_the_next",
    ),
    "a socket is unlinked under a living daemon": (
        "e2e/test_start.py::test_a_socket_that_somebody_listens_on_is_left_alone",
        "e2e/test_start.py::test_a_busy_strangers_socket_is_left_alone",
        "e2e/test_start.py::test_a_second_daemon_on_the_same_state_dir_is_refused",
        "e2e/test_start.py::test_the_stopping_daemon_leaves_a_socket_that_is_not_its_own",
    ),
    "twenty clients and a dead socket at once": (
        "e2e/test_cli_system.py::test_twenty_clients_at_once_on_a_dead_socket",
        "e2e/test_cli_system.py::test_many_starts_at_once_make_one_daemon",
    ),
    "random bytes": ("e2e/test_limits.py::test_random_bytes", "crash/test_hostile.py::test_mutated_requests"),
    "a huge length": ("crash/test_hostile.py::test_two_hundred_megabytes_without_a_newline",),
    "a half line": (
        "crash/test_hostile.py::test_leaving_after_each_byte_of_a_request",
        "crash/test_hostile.py::test_half_a_line_on_each_of_a_thousand_connections",
    ),
    "a client that never reads": (
        "e2e/test_limits.py::test_a_peer_that_asks_for_much_and_never_reads",
        "crash/test_hostile.py::test_a_hundred_who_never_read",
    ),
    "a corrupt or zero-filled database is replaced by a clean one": (
        "crash/test_system_calls.py::test_a_database_that_can_not_be_used_is_refused_and_left_alone",
        "crash/test_system_calls.py::test_damage_is_found_after_an_unclean_stop",
        "store/test_sqlite_files.py::TestUnusable::test_refused_and_left_alone",
    ),
    "grandchildren survive a kill": ("e2e/test_ending_jobs.py::test_a_running_job_has_its_whole_tree_ended",),
    "children in sessions of their own survive a kill": (
        "e2e/test_containment.py::test_cancel",
        "e2e/test_ending_jobs.py::test_a_fork_bomb_of_sessions_is_cancelled",
    ),
    "a job that ignores SIGTERM": (
        "e2e/test_ending_jobs.py::test_a_timeout_of_a_job_that_ignores_sigterm",
        "e2e/test_lifecycle_daemon.py::test_a_job_that_ignores_sigterm_does_not_hold_up_the_stop",
    ),
    "a job that daemonizes": ("e2e/test_ending_jobs.py::test_what_a_finished_main_process_left_behind_is_ended",),
    "a stopped job": ("e2e/test_ending_jobs.py::test_a_stopped_job_is_cancelled_too",),
    "a stopped worker": ("e2e/test_workers.py::test_a_stopped_worker_is_killed_with_its_job_and_replaced",),
    "the daemon's environment leaks into jobs": (
        "e2e/test_job_environment.py::test_nothing_of_the_daemons_or_systemds_environment",
    ),
    "the daemon's descriptors leak into jobs": (
        "e2e/test_job_environment.py::test_no_descriptor_but_its_three_and_the_locks",
    ),
    "cancel while waiting for a retry": ("e2e/test_ending_jobs.py::test_a_job_that_waits_for_its_retry_is_cancelled",),
    "kill then remove in a loop": ("crash/test_peers_bugs.py::test_kill_then_remove_in_a_loop",),
    "cancel at the moment of completion": ("e2e/test_ending_jobs.py::test_cancel_at_the_moment_of_completion",),
    "a late result overwrites a job that completed": (
        "crash/test_peers_bugs.py::test_a_late_result_changes_nothing",
        "crash/test_failpoints.py::test_a_daemon_that_dies_over_a_dead_worker_settles_it_once",
    ),
    "a result with the wrong fence counts": ("crash/test_peers_bugs.py::test_a_result_with_another_fence_is_refused",),
    "a job both finished and failed": ("crash/test_peers_bugs.py::test_no_job_has_both_finished_and_failed",),
    "a job claimed for ever because its finish raised": (
        "crash/test_peers_bugs.py::test_a_job_whose_finish_raised_is_not_claimed_for_ever",
        "crash/test_system_calls.py::test_while_nothing_can_be_written_all_waits_and_then_goes_on_by_itself",
        "crash/test_hostile.py::test_a_proof_of_death_that_needs_a_descriptor_waits_for_one",
    ),
    "EMFILE when a log is opened ends the daemon": (
        "crash/test_hostile.py::test_a_log_that_can_not_be_opened_is_no_fault_of_the_request",
        "crash/test_peers_bugs.py::test_a_log_that_can_not_be_made_for_want_of_a_descriptor",
    ),
    "ENOSPC when a log is opened ends the daemon": (
        "crash/test_peers_bugs.py::test_a_log_that_can_not_be_made_for_want_of_space",
        "crash/test_system_calls.py::test_on_a_full_disk_new_jobs_are_refused_and_running_ones_end",
    ),
    "a low descriptor limit with 5,000 jobs and a live watcher": (
        "crash/test_hostile.py::test_few_descriptors_5000_jobs_and_live_followers",
    ),
    "ids used again after clean-up": (
        "e2e/test_jobs.py::test_purge_removes_jobs_and_logs_and_frees_the_id",
        "store/test_contract.py::TestDelete::test_numbers_are_never_used_again",
        "e2e/test_copied_queue.py::test_a_backup_put_back_does_not_continue_old_logs",
    ),
    "client and daemon of different versions": (
        "unit/test_client_link.py::test_another_protocol_version_is_refused_with_both_named",
        "e2e/test_cli_system.py::test_a_daemon_of_another_protocol",
        "protocol/test_messages.py::test_fields_of_a_newer_daemon_are_passed_over",
    ),
    "a client gone before the reply (EPIPE)": (
        "e2e/test_limits.py::test_a_peer_that_leaves_before_the_reply_has_its_change_made",
        "crash/test_hostile.py::test_leaving_between_request_and_reply",
    ),
    "one row that can't be processed blocks all others": (
        "crash/test_broken_rows.py::test_a_broken_row_is_dead_with_the_reason_and_others_run",
    ),
    "the write-ahead log grows without bound under a long reader": (
        "store/test_sqlite_files.py::TestBounds::test_a_log_that_grew_is_cut_back",
        "crash/test_system_calls.py::test_the_write_ahead_log_stays_bounded_under_load_with_readers",
    ),
    "slow status with very many jobs": (
        "crash/test_peers_bugs.py::test_status_costs_the_same_however_many_jobs_there_are",
        "store/test_sqlite_plans.py::test_no_full_scan_and_no_sort",
    ),
    "SQLite handles carried across fork corrupt the database": (
        "crash/test_peers_bugs.py::test_no_process_but_the_daemon_has_the_database_open",
        "crash/test_peers_bugs.py::test_nothing_forks_without_an_exec",
    ),
    "the clock jumps": (
        "crash/test_clock_jumps.py::test_jobs_that_wait_do_not_wait_for_the_jump_too",
        "crash/test_clock_jumps.py::test_a_running_job_is_neither_lost_nor_run_again",
        "unit/test_clock.py::test_whatever_happens_it_never_goes_back_nor_slower_than_time",
    ),
    "all CPU and no work: a burst of hundreds of jobs": (
        "crash/test_peers_bugs.py::test_hundreds_of_jobs_that_wait_cost_no_processor",
    ),
    "all CPU and no work: a crash-looping worker": (
        "crash/test_peers_bugs.py::test_workers_that_can_not_start_are_not_started_in_a_tight_loop",
        "unit/test_core_pool.py::test_pauses_double_and_are_bounded",
    ),
}
"""What went wrong elsewhere -> the tests (below tests/) that would see it here."""


@pytest.mark.parametrize("bug", BUGS)
def test_its_tests_are_there(bug: str) -> None:
    assert BUGS[bug]
    for node in BUGS[bug]:
        path, *names = node.split("::")
        scope: ast.Module | ast.ClassDef | ast.FunctionDef = ast.parse((ROOT / "tests" / path).read_text())
        for name in names:
            found = [one for one in scope.body if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name]
            assert found, f"there is no {node}"
            scope = found[0]
        assert isinstance(scope, ast.FunctionDef)
        assert scope.name.startswith("test_")


# --- kill and remove ------------------------------------------------------------------------------------------------


def test_kill_then_remove_in_a_loop(single: Daemon, directory: Path) -> None:
    """The same id again and again; what is left of the one before never counts for the next."""
    pids = directory / "pids"
    for turn in range(6):
        job = {"id": "loop", "command": f"echo $$ >> {pids}; sleep 300 & sleep 300; : {turn}", "max_retries": 1}
        single.call("job.enqueue", jobs=[job])
        wait_for(lambda turn=turn: len(lines_of(pids)) == turn + 1, "the job to run")  # type: ignore[misc]
        (worker,) = single.wait_workers(1, "busy")
        os.kill(worker["pid"], signal.SIGKILL)
        assert single.wait_state("loop", "dead")["error"] == "worker lost"
        assert not is_running(int(lines_of(pids)[-1]))
        assert single.call("dlq.purge", ids=["loop"])["count"] == 1
        with pytest.raises(RefusedError):
            single.job("loop")
    assert set(single.call("status.get")["counts"].values()) == {0}
    assert list((single.state_dir / "logs").rglob("*.log")) == []
    single.wait_workers(1)
    assert "Traceback" not in single.log.read_text()


# --- outcomes -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else sqlite_store(tmp_path)
    yield opened
    opened.close()


def leased(store: Store, worker: str) -> Lease:
    store.begin()
    (lease,) = lease_jobs(store, [worker], Settings(), NOW).result.leases
    store.commit()
    return lease


def finish(store: Store, worker: str, lease: Lease, outcome: Outcome, token: str | None = None) -> None:
    result = AttemptResult(lease.job, lease.attempt, token or lease.token, outcome, NOW, exit_code=0)
    store.begin()
    store.mark()
    try:
        finish_attempt(store, worker, result, Settings(), NOW, 0.0, more=False)
    except ProtocolError:
        store.undo()
        raise
    else:
        store.keep()
    finally:
        store.commit()


def lose(store: Store, worker: str) -> None:
    store.begin()
    settle_worker(store, worker, Outcome.LOST, {}, Settings(), NOW, 0.0)
    store.commit()


def refused(store: Store, worker: str, lease: Lease, outcome: Outcome, token: str | None = None) -> None:
    """The outcome is refused, and nothing is changed by it."""
    before = store.job(lease.job), store.counts(), store.running()
    with pytest.raises(ProtocolError) as refusal:
        finish(store, worker, lease, outcome, token)
    assert refusal.value.kind == "conflict"
    assert (store.job(lease.job), store.counts(), store.running()) == before


@pytest.mark.parametrize("late", [Outcome.COMPLETED, Outcome.FAILED, Outcome.LOST])
def test_a_late_result_changes_nothing(store: Store, late: Outcome) -> None:
    """An attempt was given up; its worker speaks all the same: before, while and after another one runs."""
    put(store, new_job("job", max_retries=3))
    first = leased(store, "w1")
    lose(store, "w1")
    refused(store, "w1", first, late)
    record = store.get(first.job)
    assert record is not None
    store.begin()
    store.update(first.job, state=record.state, attempts=1, run_at=NOW, cancelling=False, now=NOW)
    store.commit()
    second = leased(store, "w2")
    refused(store, "w1", first, late)
    finish(store, "w2", second, Outcome.COMPLETED)
    refused(store, "w1", first, late)
    record = store.get(first.job)
    assert record is not None
    assert record.state is JobState.COMPLETED


def test_a_rescuer_does_not_overwrite_what_has_completed(store: Store) -> None:
    put(store, new_job("job"))
    lease = leased(store, "w1")
    finish(store, "w1", lease, Outcome.COMPLETED)
    lose(store, "w1")
    record = store.get(lease.job)
    assert record is not None
    assert (record.state, record.error) == (JobState.COMPLETED, None)


def test_a_result_with_another_fence_is_refused(store: Store) -> None:
    put(store, new_job("job"))
    lease = leased(store, "w1")
    refused(store, "w1", lease, Outcome.COMPLETED, token="another")
    refused(store, "w2", lease, Outcome.COMPLETED)
    finish(store, "w1", lease, Outcome.COMPLETED)


@pytest.mark.parametrize("first", [Outcome.COMPLETED, Outcome.FAILED])
@pytest.mark.parametrize("second", [Outcome.COMPLETED, Outcome.FAILED])
def test_no_job_has_both_finished_and_failed(store: Store, first: Outcome, second: Outcome) -> None:
    put(store, new_job("job", max_retries=1))
    lease = leased(store, "w1")
    finish(store, "w1", lease, first)
    refused(store, "w1", lease, second)
    (attempt,) = store.attempts(lease.job)
    assert attempt.outcome is first
    assert sum(store.counts().values()) == 1


def test_a_job_whose_finish_raised_is_not_claimed_for_ever(make_daemon: Callable[..., Daemon]) -> None:
    """The outcome can't be stored, for a reason that nobody has foreseen: a trigger in the database."""
    daemon = make_daemon().start("--workers", "1")
    gate = daemon.directory / "gate"
    job_id = daemon.enqueue(f"until [ -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    daemon.wait_state(job_id, "processing")
    database = daemon.state_dir / "queue.db"
    trigger = "CREATE TRIGGER broken BEFORE UPDATE OF outcome ON attempts BEGIN SELECT RAISE(ABORT, 'no'); END"
    with closing(sqlite3.connect(database)) as foreign, foreign:
        foreign.execute(trigger)
    gate.touch()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 1, "it is not known what is stored: the daemon goes, and its successor finds out"
    with closing(sqlite3.connect(database)) as foreign, foreign:
        foreign.execute("DROP TRIGGER broken")
    daemon.start()
    job = daemon.wait_state(job_id, "dead")
    assert [(one["outcome"], one["exit_code"]) for one in job["history"]] == [("failed", 7)]
    daemon.wait_state(daemon.enqueue("true"), "completed")


# --- logs that can't be opened --------------------------------------------------------------------------------------


def test_a_log_that_can_not_be_made_for_want_of_a_descriptor(single: Daemon) -> None:
    (worker,) = single.workers()
    limits = resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE)
    resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE, (3, limits[1]))
    job_id = single.enqueue("true", max_retries=1)
    wait_for(lambda: "can't be started yet" in single.log.read_text(), "the worker to say so")
    assert "Too many open files" in single.log.read_text()
    resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE, limits)
    assert len(single.wait_state(job_id, "completed")["history"]) == 1
    assert [one["pid"] for one in single.workers()] == [worker["pid"]]
    assert "Traceback" not in single.log.read_text()


@needs_strace
def test_a_log_that_can_not_be_made_for_want_of_space(single: Daemon, directory: Path) -> None:
    (worker,) = single.workers()
    single.wait_state(single.enqueue("echo said"), "completed")
    log = single.state_dir / "logs" / "0" / "2.1.log"
    inject = ["-P", str(log), "-e", "trace=openat", "-e", "inject=openat:error=ENOSPC:when=1..3"]
    with attached(worker["pid"], ["strace", "-f", "-qq", "-o", str(directory / "trace"), *inject]):
        job = single.wait_state(single.enqueue("true", max_retries=1), "completed")
    assert len(job["history"]) == 1
    assert single.log.read_text().count("No space left on device") == 1, "it is said once"
    assert [one["pid"] for one in single.workers()] == [worker["pid"]]
    assert "Traceback" not in single.log.read_text()


# --- the database ---------------------------------------------------------------------------------------------------


def test_status_costs_the_same_however_many_jobs_there_are(tmp_path: Path) -> None:
    """Counted in SQLite's own steps, so that no clock decides."""
    store = sqlite_store(tmp_path)
    reader = store.reader()
    put(store, *(new_job(f"few{n}") for n in range(10)))
    few = _steps(store, Reader.counts), _steps(reader, Reader.counts)
    put(store, *(new_job(f"many{n}") for n in range(20_000)))
    assert (_steps(store, Reader.counts), _steps(reader, Reader.counts)) == few
    assert reader.counts()[JobState.PENDING] == 20_010
    reader.close()
    store.close()


def _steps(view: SqliteStore | SqliteReader, read: Callable[[Reader], object]) -> int:
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    view._db._raw.set_progress_handler(one, 1)
    try:
        read(view)
    finally:
        view._db._raw.set_progress_handler(None, 1)
    return count


def test_no_process_but_the_daemon_has_the_database_open(pool: Daemon, directory: Path) -> None:
    pool.enqueue(f"echo > {directory}/ran; sleep 300; true")
    wait_for((directory / "ran").exists, "the job to run")
    others = [pid for pid in processes_with(str(directory)) if pid != pool.pid]
    assert len(others) >= 3, "two workers and a job"
    assert [pid for pid in others if _databases(pid)] == []
    count = _databases(pool.pid)
    assert count > 0
    for generation in (1, 2):
        os.kill(pool.pid, signal.SIGHUP)
        wait_for(lambda g=generation: pool.call("server.info")["generation"] == g, "the reload")  # type: ignore[misc]
        assert _databases(pool.pid) <= count, "nothing was carried across the exec"


def _databases(pid: int) -> int:
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += "queue.db" in str(entry.readlink())
    return found


def test_nothing_forks_without_an_exec() -> None:
    """Neither connections of SQLite nor threads survive a fork; vfork and exec, as Popen does, is no such fork."""
    for path in (ROOT / "queuectld").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name):
                assert ast.unparse(node) not in {"os.fork", "os.forkpty", "multiprocessing", "ProcessPoolExecutor"}, (
                    path
                )
            if isinstance(node, ast.keyword):
                assert node.arg != "preexec_fn", path


# --- all CPU and no work --------------------------------------------------------------------------------------------


def _processor(pid: int) -> float:
    """Seconds of it that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_hundreds_of_jobs_that_wait_cost_no_processor(pool: Daemon, directory: Path) -> None:
    gate = directory / "gate"
    for _ in range(2):
        pool.enqueue(f"until [ -e {gate} ]; do sleep 0.1; done")
    pool.wait_workers(2, "busy")
    with pool.wire() as wire:
        for number in range(400):
            wire.send("job.enqueue", jobs=[{"id": f"burst{number}", "argv": ["/bin/true"]}])
        for _ in range(400):
            assert "result" in wire.receive()
    before, began = _processor(pool.pid), time.monotonic()
    wait_for(lambda: time.monotonic() - began > 1.0, "a second with a full queue")
    assert _processor(pool.pid) - before <= 0.1
    gate.touch()
    wait_for(lambda: pool.call("status.get")["counts"]["completed"] == 402, "all of them to complete")


def test_workers_that_can_not_start_are_not_started_in_a_tight_loop(daemon: Daemon) -> None:
    away = daemon.state_dir / "away"
    (daemon.state_dir / "workers").rename(away)  # where their locks are: without them no worker starts
    began = time.monotonic()
    daemon.call("worker.start", count=2)
    wait_for(lambda: daemon.log.read_text().count("can't start") >= 3, "some of them to fail")
    assert time.monotonic() - began > 1, "two at once, the third at least a second after one of them has failed"
    assert daemon.call("server.info")["pid"] == daemon.pid
    away.rename(daemon.state_dir / "workers")
    daemon.wait_state(daemon.enqueue("true"), "completed")
