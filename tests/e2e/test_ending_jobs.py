"""Ending jobs: cancel, timeout, and what a finished job leaves behind; always the whole process tree."""

from __future__ import annotations

import functools
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, RefusedError, is_running, lines_of, seconds, wait_for
from tests.jobs import pids_in

IGNORE = "trap '' TERM; "


def tree(pids: Path, *, ignore: bool = False) -> str:
    """A command that starts a child, a grandchild in a session of its own, and an orphan; and waits for ever."""
    trap = IGNORE if ignore else ""
    sleeper = f"{trap}echo $$ >> {pids}; while :; do sleep 0.05; done"
    return (
        f'{trap}echo $$ >> {pids}; sh -c "{sleeper.replace("$", chr(92) + "$")}" & '
        f'setsid sh -c "{sleeper.replace("$", chr(92) + "$")}" & '
        f'(setsid sh -c "{sleeper.replace("$", chr(92) + "$")}" &); '
        "while :; do sleep 0.05; done"
    )


def cancel(daemon: Daemon, job_id: str) -> dict[str, Any]:
    summary: dict[str, Any] = daemon.call("job.cancel", ids=[job_id])["jobs"][0]
    return summary


# --- cancel ---------------------------------------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_at_once_and_never_runs(daemon: Daemon, directory: Path) -> None:
    job_id = daemon.enqueue(f"touch {directory}/ran")
    assert cancel(daemon, job_id)["state"] == "cancelled"
    daemon.call("worker.start", count=1)
    daemon.call("job.wait", ids=[daemon.enqueue("true")])
    assert not (directory / "ran").exists()
    assert daemon.job(job_id)["attempts"] == 0


def test_a_job_that_waits_for_its_retry_is_cancelled(single: Daemon) -> None:
    single.call("config.set", key="backoff_base", value=1000)
    job_id = single.enqueue("exit 1")
    single.wait_state(job_id, "failed")
    assert cancel(single, job_id)["state"] == "cancelled"
    job = single.job(job_id)
    assert (job["attempts"], job["exit_code"]) == (1, 1)


@pytest.mark.parametrize("ignore", [False, True], ids=["obeys", "ignores SIGTERM"])
def test_a_running_job_has_its_whole_tree_ended(single: Daemon, directory: Path, ignore: bool) -> None:
    grace = 0.3 if ignore else 30
    single.call("config.set", key="kill_grace", value=grace)
    job_id = single.enqueue(tree(directory / "pids", ignore=ignore))
    pids = pids_in(directory / "pids", 4)
    began = time.time()
    assert cancel(single, job_id)["state"] in ("processing", "cancelled")
    job = single.wait_state(job_id, "cancelled")
    assert not [pid for pid in pids if is_running(pid)], "cancelled means that all of it is gone"
    (attempt,) = job["history"]
    assert attempt["outcome"] == "cancelled"
    assert attempt["signal"] == (signal.SIGKILL if ignore else signal.SIGTERM)
    if ignore:
        assert seconds(attempt["ended_at"]) - began >= grace - 0.01
    assert single.wait_workers(1)[0]["job"] is None


def test_a_stopped_job_is_cancelled_too(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=30)
    job_id = single.enqueue(f"echo $$ > {directory}/pids; kill -STOP $$; sleep 100")
    (pid,) = pids_in(directory / "pids", 1)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the job to stop")
    cancel(single, job_id)
    assert single.wait_state(job_id, "cancelled")["history"][0]["signal"] == signal.SIGTERM


def test_a_job_that_exits_0_on_sigterm_of_a_cancel_has_its_end_told_once(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=60)
    gate = directory / "ready"
    job_id = single.enqueue(f"trap 'exit 0' TERM; touch {gate}; while :; do sleep 0.05; done")
    wait_for(gate.exists, "the trap")
    cancel(single, job_id)
    job = single.wait_state(job_id, "cancelled", "completed")
    assert job["state"] == "cancelled"
    assert job["history"][0]["exit_code"] == 0


def test_cancel_asked_for_twice_is_fine_and_of_an_ended_job_refused(single: Daemon) -> None:
    single.call("config.set", key="kill_grace", value=0.2)
    job_id = single.enqueue(f"{IGNORE}while :; do sleep 0.05; done")
    single.wait_state(job_id, "processing")
    for _ in range(3):
        cancel(single, job_id)
    single.wait_state(job_id, "cancelled")
    assert cancel(single, job_id)["state"] == "cancelled"
    done = single.enqueue("true")
    single.wait_state(done, "completed")
    with pytest.raises(RefusedError) as caught:
        cancel(single, done)
    assert caught.value.kind == "invalid_state"


def test_a_job_being_cancelled_says_so(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=60)
    job_id = single.enqueue(
        f"trap 'touch {directory}/told' TERM; touch {directory}/ready; while :; do sleep 0.05; done"
    )
    wait_for((directory / "ready").exists, "the trap")
    cancel(single, job_id)
    wait_for((directory / "told").exists, "SIGTERM")
    job = single.job(job_id)
    assert (job["state"], job["cancelling"]) == ("processing", True)


def test_cancel_at_the_moment_of_completion(pool: Daemon) -> None:
    """Either the cancel won or the completion: never both, never neither, and the worker goes on."""
    ended = {"completed": 0, "cancelled": 0}
    refusals: list[tuple[str, str]] = []
    for turn in range(60):
        job_id = pool.enqueue(f"sleep 0.00{turn % 6}")
        if turn % 2:
            wait_for(lambda job_id=job_id: pool.job(job_id)["state"] != "pending", "the start")  # type: ignore[misc]
        try:
            cancel(pool, job_id)
        except RefusedError as error:
            refusals.append((error.kind, pool.job(job_id)["state"]))
        (summary,) = pool.call("job.wait", ids=[job_id], timeout=30)["jobs"]
        ended[summary["state"]] += 1
        job = pool.job(job_id)
        assert len(job["history"]) <= 1
        assert [one["outcome"] for one in job["history"]] in ([], [summary["state"]])
    assert sum(ended.values()) == 60
    assert set(refusals) <= {("invalid_state", "completed")}
    assert len(pool.wait_workers(2)) == 2


def test_cancel_and_retry_in_a_loop_runs_nothing_twice_at_the_same_time(pool: Daemon, directory: Path) -> None:
    # The lock is the witness: all processes of an execution hold it, however they end.
    taken = f"exec 9>>{directory}/lock; flock -n 9 || {{ echo twice >> {directory}/bad; exit 1; }}"
    job_id = pool.enqueue(f"{taken}; echo begun >> {directory}/begun; while :; do sleep 0.01; done", max_retries=1)

    def has_begun(times: int) -> bool:
        return len(lines_of(directory / "begun")) == times

    for number in range(1, 11):
        wait_for(functools.partial(has_begun, number), "the job to run")
        cancel(pool, job_id)
        pool.wait_state(job_id, "cancelled")
        pool.call("job.retry", ids=[job_id])
    cancel(pool, job_id)
    pool.wait_state(job_id, "cancelled")
    assert lines_of(directory / "bad") == []


# --- timeout --------------------------------------------------------------------------------------------------------


def test_a_timeout_ends_the_attempt_which_is_then_retried(single: Daemon, directory: Path) -> None:
    job_id = single.enqueue(tree(directory / "pids"), timeout=2.5, max_retries=2)
    job = single.wait_state(job_id, "dead")
    assert [attempt["outcome"] for attempt in job["history"]] == ["timeout", "timeout"]
    assert "2.5" in job["error"]
    assert job["exit_code"] == 128 + signal.SIGTERM
    for attempt in job["history"]:
        assert seconds(attempt["ended_at"]) - seconds(attempt["started_at"]) >= 2.49
    assert not [pid for pid in pids_in(directory / "pids", 1) if is_running(pid)]


def test_a_timeout_of_a_job_that_ignores_sigterm(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=0.2)
    job_id = single.enqueue(tree(directory / "pids", ignore=True), timeout=3, max_retries=1)
    job = single.wait_state(job_id, "dead")
    assert (job["history"][0]["outcome"], job["history"][0]["signal"]) == ("timeout", signal.SIGKILL)
    assert not [pid for pid in pids_in(directory / "pids", 1) if is_running(pid)]


def test_the_default_timeout_and_none(single: Daemon) -> None:
    single.call("config.set", key="job_timeout", value=0.1)
    none = single.enqueue("sleep 0.4", timeout=0, max_retries=1)
    default = single.enqueue("sleep 60", max_retries=1)
    single.call("job.wait", ids=[none, default])
    assert single.job(none)["state"] == "completed"
    assert single.job(default)["history"][0]["outcome"] == "timeout"


# --- what is left behind --------------------------------------------------------------------------------------------

LEFTOVERS = {
    "background": "{left} &",
    "nohup setsid": "nohup setsid {left} >/dev/null 2>&1 &",
    "double fork": "(setsid sh -c '{left} & true' &);",
    "closes the lock": "setsid sh -c 'exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec {left}' &",
    "another environment": "setsid env -i /bin/sh {left} &",
    "ignores SIGTERM": "setsid sh -c 'trap \"\" TERM; {left}; while :; do sleep 0.05; done' &",
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_a_finished_main_process_left_behind_is_ended(single: Daemon, directory: Path, kind: str) -> None:
    pids, left = directory / "pids", directory / "left"
    left.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 1000\n")
    left.chmod(0o755)
    single.call("config.set", key="kill_grace", value=0.2)
    start = LEFTOVERS[kind].format(left=left)
    job_id = single.enqueue(f"{start} until test -s {pids}; do sleep 0.01; done; exit 4", max_retries=1)
    job = single.wait_state(job_id, "dead")
    assert job["exit_code"] == 4, "the outcome is that of the main process"
    assert job["history"][0]["outcome"] == "failed"
    (pid,) = pids_in(pids, 1)
    assert not is_running(pid)


def test_a_cancel_while_only_leftovers_are_there_does_not_change_the_outcome(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=60)
    gate = directory / "gate"
    left = f"setsid sh -c 'trap \"\" TERM; echo $$ >> {directory}/pids; until test -e {gate}; do sleep 0.05; done' &"
    job_id = single.enqueue(f"{left} until test -s {directory}/pids; do sleep 0.01; done; echo $$ > {directory}/main")
    (main,) = pids_in(directory / "main", 1)
    wait_for(lambda: not is_running(main), "the main process to end")
    cancel(single, job_id)
    gate.touch()
    assert single.wait_state(job_id, "completed", "cancelled")["state"] == "completed"


def test_a_fork_bomb_of_sessions_is_cancelled(single: Daemon, directory: Path) -> None:
    """Children that fork faster than they are looked for; each in a session of its own."""
    single.call("config.set", key="kill_grace", value=0)
    script = directory / "bomb"
    script.write_text(f'#!/bin/sh\necho x >> {directory}/count\nsleep 0.02\nsetsid "$0" &\n')
    script.chmod(0o755)
    job_id = single.enqueue(f"{script}; while :; do sleep 0.05; done")
    wait_for(lambda: len(lines_of(directory / "count")) > 20, "some generations")
    cancel(single, job_id)
    single.wait_state(job_id, "cancelled")
    count = len(lines_of(directory / "count"))
    single.call("job.wait", ids=[single.enqueue("sleep 0.2")])
    assert len(lines_of(directory / "count")) == count
