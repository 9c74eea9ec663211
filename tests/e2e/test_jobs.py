"""The life of a job, as seen over the wire: every state and every transition of the contract's table."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, RefusedError, lines_of, seconds, wait_for


def refused(daemon: Daemon, method: str, **params: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        daemon.call(method, **params)
    return caught.value


def outcomes(job: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in job["history"]]


# --- enqueue --------------------------------------------------------------------------------------------------------


def test_a_new_job_is_pending_and_has_all_its_fields(daemon: Daemon) -> None:
    before = time.time()
    job_id = daemon.enqueue("echo Hello", priority=3, queue="q1", max_retries=5, timeout=7, label="note", cwd="/tmp")
    job = daemon.job(job_id)
    assert job["state"] == "pending"
    assert (job["id"], job["queue"], job["command"], job["priority"]) == (job_id, "q1", "echo Hello", 3)
    assert (job["attempts"], job["max_retries"], job["timeout"], job["label"]) == (0, 5, 7, "note")
    assert (job["cwd"], job["exit_code"], job["error"], job["history"]) == ("/tmp", None, None, [])
    assert before - 1 < seconds(job["created_at"]) <= time.time() + 1
    assert job["run_at"] == job["created_at"]
    assert job["run_at"].endswith("Z")


def test_an_argument_vector_is_kept_as_it_is(single: Daemon, directory: Path) -> None:
    argv = ["printf", "%s|", "a b", "$HOME", "", "é\n"]
    (job_id,) = single.call("job.enqueue", jobs=[{"argv": argv}])["ids"]
    job = single.wait_state(job_id, "completed")
    assert job["argv"] == argv
    assert "command" not in job
    assert single.output(job_id) == "a b|$HOME||é\n|"


def test_the_environment_is_shown_only_where_asked_for(daemon: Daemon) -> None:
    job_id = daemon.enqueue("true", env={"TOKEN": "secret"})
    assert "env" not in daemon.job(job_id)
    assert "env" not in daemon.call("job.list")["jobs"][0]
    assert daemon.call("job.get", id=job_id, env=True)["env"] == {"TOKEN": "secret"}


def test_ids_that_the_daemon_makes_are_short_and_plain(daemon: Daemon) -> None:
    ids = daemon.call("job.enqueue", jobs=[{"command": "true"}] * 20)["ids"]
    assert len(set(ids)) == 20
    for job_id in ids:
        assert len(job_id) <= 12
        assert set(job_id) <= set("23456789abcdefghjkmnpqrstvwxyz")


def test_the_same_id_with_the_same_content_is_success_and_one_job(daemon: Daemon) -> None:
    spec = {"id": "job1", "command": "echo Hello", "env": {"A": "1", "B": "2"}}
    again = {"env": {"A": "1", "B": "2"}, "command": "echo Hello", "id": "job1"}
    assert daemon.call("job.enqueue", jobs=[spec])["ids"] == ["job1"]
    assert daemon.call("job.enqueue", jobs=[again])["ids"] == ["job1"]
    assert daemon.call("status.get")["counts"]["pending"] == 1


def test_a_request_sent_again_after_its_job_ran_does_not_run_it_again(single: Daemon, directory: Path) -> None:
    trace = directory / "trace"
    spec = {"id": "once", "command": f"echo ran >> {trace}"}
    single.call("job.enqueue", jobs=[spec])
    single.wait_state("once", "completed")
    assert single.call("job.enqueue", jobs=[spec])["ids"] == ["once"]
    last = single.enqueue("true")
    single.wait_state(last, "completed")
    assert lines_of(trace) == ["ran"]


def test_the_same_request_after_a_changed_default_is_still_the_same(daemon: Daemon) -> None:
    daemon.enqueue("true", id="job1")
    daemon.call("config.set", key="max_retries", value=9)
    daemon.enqueue("true", id="job1")
    assert daemon.job("job1")["max_retries"] == 3


@pytest.mark.parametrize("change", [{"command": "echo other"}, {"priority": 1}, {"env": {"A": "1"}}, {"delay": 5}])
def test_the_same_id_with_other_content_is_a_conflict(daemon: Daemon, change: dict[str, Any]) -> None:
    daemon.enqueue("echo Hello", id="job1")
    error = refused(daemon, "job.enqueue", jobs=[{"id": "job1", "command": "echo Hello", **change}])
    assert error.kind == "conflict"
    assert "job1" in str(error)
    assert daemon.job("job1")["command"] == "echo Hello"


def test_a_conflict_refuses_all_jobs_of_the_request(daemon: Daemon) -> None:
    daemon.enqueue("true", id="taken")
    jobs = [{"id": "new1", "command": "true"}, {"id": "taken", "command": "false"}, {"id": "new2", "command": "true"}]
    assert refused(daemon, "job.enqueue", jobs=jobs).kind == "conflict"
    assert [job["id"] for job in daemon.call("job.list")["jobs"]] == ["taken"]


def test_one_id_twice_with_other_content_in_one_request_is_a_conflict(daemon: Daemon) -> None:
    jobs = [{"id": "twice", "command": "true"}, {"id": "twice", "command": "false"}]
    assert refused(daemon, "job.enqueue", jobs=jobs).kind == "conflict"
    assert daemon.call("job.list")["jobs"] == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"command": "true", "colour": "red"}, "colour"),
        ({"command": "true", "priority": "high"}, "priority"),
        ({"command": "true", "max_retries": -1}, "max_retries"),
        ({"command": "true", "timeout": -0.5}, "timeout"),
        ({"command": "true", "delay": -1}, "delay"),
        ({"command": ""}, "command"),
        ({"command": "   "}, "command"),
        ({"argv": []}, "argv"),
        ({}, "command"),
        ({"command": "true", "argv": ["true"]}, "argv"),
        ({"command": "true", "cwd": "relative"}, "cwd"),
        ({"command": "true", "id": "with space"}, "id"),
    ],
)
def test_a_bad_job_is_refused_by_its_field_and_nothing_is_enqueued(
    daemon: Daemon, fields: dict[str, Any], named: str
) -> None:
    error = refused(daemon, "job.enqueue", jobs=[{"command": "true"}, fields])
    assert error.kind == "invalid_params"
    assert named in str(error)
    assert daemon.call("job.list")["jobs"] == []


def test_a_hundred_connections_enqueue_at_once(daemon: Daemon) -> None:
    with ThreadPoolExecutor(100) as threads:
        ids = list(threads.map(lambda number: daemon.enqueue("true", id=f"job-{number}"), range(100)))
    assert daemon.call("status.get")["counts"]["pending"] == 100
    assert {job["id"] for job in daemon.call("job.list", limit=1000)["jobs"]} == set(ids)


def test_a_hundred_connections_with_the_same_id_make_one_job(daemon: Daemon) -> None:
    with ThreadPoolExecutor(100) as threads:
        assert set(threads.map(lambda _: daemon.enqueue("true", id="same"), range(100))) == {"same"}
    assert daemon.call("status.get")["counts"]["pending"] == 1


# --- references and lists -------------------------------------------------------------------------------------------


def test_a_unique_prefix_is_enough(daemon: Daemon) -> None:
    daemon.enqueue("true", id="alpha-1")
    daemon.enqueue("true", id="beta-1")
    assert daemon.job("al")["id"] == "alpha-1"
    assert daemon.call("job.cancel", ids=["b"])["jobs"][0]["id"] == "beta-1"


def test_an_ambiguous_prefix_is_refused_with_examples_and_a_whole_id_wins(daemon: Daemon) -> None:
    for job_id in ("job", "job1", "job10"):
        daemon.enqueue("true", id=job_id)
    error = refused(daemon, "job.cancel", ids=["job10", "jo"])
    assert error.kind == "conflict"
    assert "job1" in str(error)
    assert daemon.call("status.get")["counts"]["cancelled"] == 0
    assert daemon.job("job")["id"] == "job"
    assert daemon.job("job1")["id"] == "job1"


@pytest.mark.parametrize("ref", ["nope", "job1x", "%", "_", "*", "JOB1", "é"])
def test_a_reference_to_no_job_is_not_found(daemon: Daemon, ref: str) -> None:
    daemon.enqueue("true", id="job1")
    assert refused(daemon, "job.get", id=ref).kind == "not_found"
    assert refused(daemon, "job.logs", id=ref).kind == "not_found"
    assert refused(daemon, "job.cancel", ids=["job1", ref]).kind == "not_found"
    assert daemon.job("job1")["state"] == "pending"


def test_lists_are_paged_newest_first_and_filtered(daemon: Daemon) -> None:
    daemon.call(
        "job.enqueue",
        jobs=[{"id": f"j{n:02}", "command": "true", "queue": "odd" if n % 2 else "even"} for n in range(10)],
    )
    daemon.call("job.cancel", ids=["j00", "j01"])
    found: list[str] = []
    after = None
    pages = 0
    while pages == 0 or after is not None:
        page = daemon.call("job.list", limit=3, **({"after": after} if after else {}))
        found += [job["id"] for job in page["jobs"]]
        after, pages = page["next"], pages + 1
    assert found == [f"j{n:02}" for n in reversed(range(10))]
    assert pages == 4
    by_queue = daemon.call("job.list", queue="odd", state="pending")["jobs"]
    assert [job["id"] for job in by_queue] == ["j09", "j07", "j05", "j03"]
    assert [job["id"] for job in daemon.call("job.list", state="cancelled")["jobs"]] == ["j01", "j00"]
    assert refused(daemon, "job.list", after="nonsense").kind == "invalid_params"
    assert refused(daemon, "job.list", state="gone").kind == "invalid_params"


# --- attempts and retries -------------------------------------------------------------------------------------------


def test_a_job_that_exits_0_is_completed(single: Daemon) -> None:
    job = single.wait_state(single.enqueue("echo Hello"), "completed")
    assert (job["exit_code"], job["error"], job["attempts"]) == (0, None, 1)
    (attempt,) = job["history"]
    assert (attempt["number"], attempt["outcome"], attempt["exit_code"]) == (1, "completed", 0)
    assert attempt["worker"] == single.workers()[0]["id"]
    assert seconds(job["created_at"]) <= seconds(attempt["started_at"]) <= seconds(attempt["ended_at"])


@pytest.mark.parametrize(("max_retries", "executions"), [(0, 1), (1, 1), (3, 3)])
def test_max_retries_counts_executions(single: Daemon, directory: Path, max_retries: int, executions: int) -> None:
    trace = directory / "trace"
    command = f"echo $QUEUECTL_ATTEMPT/$QUEUECTL_MAX_RETRIES >> {trace}; exit 7"
    job = single.wait_state(single.enqueue(command, max_retries=max_retries), "dead")
    assert lines_of(trace) == [f"{n}/{max_retries}" for n in range(1, executions + 1)]
    assert (job["attempts"], job["exit_code"], job["error"]) == (executions, 7, "exit code 7")
    assert outcomes(job) == ["failed"] * executions
    assert [attempt["number"] for attempt in job["history"]] == list(range(1, executions + 1))


def test_a_retry_that_succeeds_completes_the_job(single: Daemon) -> None:
    job = single.wait_state(single.enqueue('test "$QUEUECTL_ATTEMPT" = 2'), "completed")
    assert (job["attempts"], job["exit_code"], job["error"]) == (2, 0, None)
    assert outcomes(job) == ["failed", "completed"]


def test_a_signal_is_told_with_its_name_and_128_plus_n(single: Daemon) -> None:
    job = single.wait_state(single.enqueue("kill -USR1 $$", max_retries=1), "dead")
    assert job["exit_code"] == 128 + 10
    assert job["history"][0]["signal"] == 10
    assert "SIGUSR1" in job["error"]


@pytest.mark.parametrize(
    ("base", "limit", "jitter", "attempts", "least", "most"),
    [
        (2, 3600, 0, 1, 2, 2),
        (3, 3600, 0, 2, 9, 9),
        (10, 50, 0, 2, 50, 50),
        (100, 3600, 0.5, 1, 100, 150),
        (1, 3600, 0, 1, 1, 1),
    ],
)
def test_the_delay_before_a_retry(
    single: Daemon, directory: Path, base: float, limit: float, jitter: float, attempts: int, least: float, most: float
) -> None:
    gate = directory / "gate"
    wait = f"until test -e {gate}; do sleep 0.01; done"
    job_id = single.enqueue(f"test $QUEUECTL_ATTEMPT -lt {attempts} || {wait}; exit 1", max_retries=9)
    # The attempts before the one that counts are retried at once; what counts is what is set when that one fails.
    wait_for(lambda: single.job(job_id)["attempts"] == attempts, "the attempt that counts")
    for key, value in (("backoff_max", limit), ("backoff_jitter", jitter), ("backoff_base", base)):
        single.call("config.set", key=key, value=value)
    single.call("worker.stop")  # after this attempt: the one after the delay must not come before the look at it
    gate.touch()
    job = single.wait_state(job_id, "failed")
    assert job["attempts"] == attempts
    assert least - 0.001 <= seconds(job["run_at"]) - seconds(job["updated_at"]) <= most + 0.001
    assert (job["exit_code"], job["error"]) == (1, "exit code 1")


def test_a_failed_job_runs_again_when_its_time_has_come(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="backoff_base", value=0.3)
    job = single.wait_state(single.enqueue("exit 1", max_retries=2), "dead")
    first, second = job["history"]
    assert seconds(second["started_at"]) - seconds(first["ended_at"]) >= 0.299


def test_settings_count_for_the_next_job_and_a_jobs_own_values_win(daemon: Daemon) -> None:
    old = daemon.enqueue("true")
    daemon.call("config.set", key="max_retries", value=7)
    daemon.call("config.set", key="job_timeout", value=12.5)
    new, own = daemon.enqueue("true"), daemon.enqueue("true", max_retries=1, timeout=0)
    assert [(job["max_retries"], job["timeout"]) for job in map(daemon.job, (old, new, own))] == [
        (3, 0),
        (7, 12.5),
        (1, 0),
    ]


# --- order ----------------------------------------------------------------------------------------------------------


def test_one_worker_runs_by_priority_then_run_at_then_enqueueing(daemon: Daemon, directory: Path) -> None:
    trace = directory / "trace"
    jobs = [("a", 0), ("b", 5), ("c", -3), ("d", 5), ("e", 0), ("f", 1_000_000)]
    daemon.call(
        "job.enqueue",
        jobs=[{"id": name, "command": f"echo {name} >> {trace}", "priority": priority} for name, priority in jobs],
    )
    daemon.call("worker.start", count=1)
    daemon.call("job.wait", ids=[name for name, _ in jobs])
    assert lines_of(trace) == ["f", "b", "d", "a", "e", "c"]


def test_an_earlier_run_at_goes_before_an_earlier_enqueueing(single: Daemon, directory: Path) -> None:
    trace, gate = directory / "trace", directory / "gate"
    single.enqueue(f"until test -e {gate}; do sleep 0.01; done", priority=9)
    # In one request, whose jobs share one moment.
    late = {"id": "late", "command": f"echo late >> {trace}", "delay": 0.2}
    soon = {"id": "soon", "command": f"echo soon >> {trace}", "delay": 0.1}
    single.call("job.enqueue", jobs=[late, soon])
    wait_for(lambda: time.time() > seconds(single.job("late")["run_at"]), "both to be due")
    gate.touch()
    single.call("job.wait", ids=["late", "soon"])
    assert lines_of(trace) == ["soon", "late"]


def test_a_delayed_job_waits_and_does_not_hold_up_others(single: Daemon) -> None:
    jobs = [{"command": "true", "delay": 3, "priority": 10}, {"command": "true"}]
    late, soon = single.call("job.enqueue", jobs=jobs)["ids"]
    job = single.wait_state(late, "completed")
    assert seconds(single.job(soon)["history"][0]["started_at"]) < seconds(job["run_at"])
    assert seconds(job["history"][0]["started_at"]) >= seconds(job["run_at"])
    assert seconds(job["run_at"]) - seconds(job["created_at"]) == pytest.approx(3, abs=0.001)


# --- retry and the dead letter queue --------------------------------------------------------------------------------


def test_a_cancelled_job_can_be_retried(single: Daemon) -> None:
    job_id = single.enqueue("true", delay=3600)
    assert single.call("job.cancel", ids=[job_id])["jobs"][0]["state"] == "cancelled"
    (summary,) = single.call("job.retry", ids=[job_id])["jobs"]
    assert (summary["id"], summary["state"]) == (job_id, "pending")
    assert single.wait_state(job_id, "completed")["attempts"] == 1


def test_what_can_not_be_retried_is_refused_with_the_reason(single: Daemon, directory: Path) -> None:
    done = single.enqueue("true")
    single.wait_state(done, "completed")
    running = single.enqueue(f"until test -e {directory}/gate; do sleep 0.01; done")
    single.wait_state(running, "processing")
    waiting = single.enqueue("true")
    cancelled = single.enqueue("true")
    single.call("job.cancel", ids=[cancelled])
    for job_id, word in ((done, "completed"), (running, "running"), (waiting, "pending")):
        error = refused(single, "job.retry", ids=[cancelled, job_id])
        assert error.kind == "invalid_state"
        assert word in str(error)
    assert single.job(cancelled)["state"] == "cancelled"
    (directory / "gate").touch()


def test_a_retry_from_the_dlq_resets_the_attempts_and_keeps_the_history(single: Daemon, directory: Path) -> None:
    gate = directory / "gate"
    job_id = single.enqueue(f"echo try $QUEUECTL_ATTEMPT; test -e {gate}", max_retries=2)
    single.wait_state(job_id, "dead")
    assert [job["id"] for job in single.call("dlq.list")["jobs"]] == [job_id]
    gate.touch()
    assert single.call("dlq.retry", ids=[job_id])["count"] == 1
    job = single.wait_state(job_id, "completed")
    assert job["attempts"] == 1
    assert [(one["number"], one["outcome"]) for one in job["history"]] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert [single.output(job_id, attempt) for attempt in (1, 2, 3)] == ["try 1\n", "try 2\n", "try 3\n"]
    assert single.call("dlq.list")["jobs"] == []


def test_a_job_retried_from_the_dlq_has_all_its_executions_again(single: Daemon) -> None:
    job_id = single.enqueue("exit 1", max_retries=2)
    single.wait_state(job_id, "dead")
    single.call("job.retry", ids=[job_id])
    wait_for(lambda: len(single.job(job_id)["history"]) == 4, "two more executions")
    assert single.wait_state(job_id, "dead")["attempts"] == 2


def test_only_dead_jobs_are_in_the_dlq(single: Daemon) -> None:
    dead, done = single.enqueue("exit 1", max_retries=1), single.enqueue("true")
    single.call("job.wait", ids=[dead, done])
    for method in ("dlq.retry", "dlq.purge"):
        error = refused(single, method, ids=[dead, done])
        assert error.kind == "invalid_state"
        assert done in str(error)
        assert refused(single, method).kind == "invalid_params"
        assert refused(single, method, ids=[dead], all=True).kind == "invalid_params"
    assert single.job(dead)["state"] == "dead"


def test_purge_removes_jobs_and_logs_and_frees_the_id(single: Daemon) -> None:
    single.enqueue("echo old", id="job1")
    single.call("job.wait", ids=["job1"])
    single.enqueue("echo old; exit 1", id="dead1", max_retries=2)
    single.enqueue("echo old; exit 1", id="dead2", max_retries=1)
    single.call("job.wait", ids=["dead1", "dead2"])
    assert len(list((single.state_dir / "logs").rglob("*.log"))) == 4
    assert single.call("dlq.purge", ids=["dead1"])["count"] == 1
    assert len(list((single.state_dir / "logs").rglob("*.log"))) == 2
    assert refused(single, "job.get", id="dead1").kind == "not_found"
    single.enqueue("true", id="dead1", delay=3600)
    again = single.job("dead1")
    assert (again["state"], again["history"], again["exit_code"]) == ("pending", [], None)
    assert single.call("job.logs", id="dead1")["text"] == ""
    assert single.job("dead2")["state"] == "dead"
    assert single.output("job1") == "old\n"


def test_dlq_all_takes_every_dead_job_and_nothing_else(pool: Daemon, directory: Path) -> None:
    dead = pool.call("job.enqueue", jobs=[{"command": f"test -e {directory}/gate", "max_retries": 1}] * 30)["ids"]
    other = pool.enqueue("true", delay=3600)
    pool.call("job.wait", ids=dead)
    assert pool.call("status.get")["counts"]["dead"] == 30
    (directory / "gate").touch()
    assert pool.call("dlq.retry", all=True)["count"] == 30
    pool.call("job.wait", ids=dead)
    assert pool.call("status.get")["counts"]["completed"] == 30
    again = pool.call("job.enqueue", jobs=[{"command": "exit 1", "max_retries": 1}] * 5)["ids"]
    pool.call("job.wait", ids=again)
    assert pool.call("dlq.purge", all=True)["count"] == 5
    assert pool.call("dlq.purge", all=True)["count"] == 0
    assert pool.call("status.get")["counts"] == {
        "pending": 1, "processing": 0, "completed": 30, "failed": 0, "dead": 0, "cancelled": 0,
    }  # fmt: skip
    assert pool.job(other)["state"] == "pending"


# --- waiting --------------------------------------------------------------------------------------------------------


def test_wait_answers_when_all_have_ended(pool: Daemon) -> None:
    ids = [pool.enqueue("true"), pool.enqueue("exit 3", max_retries=2), pool.enqueue("sleep 0.2")]
    summaries = pool.call("job.wait", ids=ids)["jobs"]
    assert [(one["id"], one["state"], one["exit_code"]) for one in summaries] == [
        (ids[0], "completed", 0),
        (ids[1], "dead", 3),
        (ids[2], "completed", 0),
    ]


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_wait_with_a_timeout_tells_how_it_stands(daemon: Daemon, timeout: float) -> None:
    job_id = daemon.enqueue("true")
    began = time.monotonic()
    (summary,) = daemon.call("job.wait", ids=[job_id], timeout=timeout)["jobs"]
    assert summary["state"] == "pending"
    assert time.monotonic() - began >= timeout


def test_a_job_that_is_purged_while_others_are_waited_for_counts_as_dead(daemon: Daemon) -> None:
    daemon.call("worker.start", count=1)
    daemon.enqueue("exit 1", id="dead", max_retries=1)
    daemon.call("job.wait", ids=["dead"])
    daemon.enqueue("true", id="never", delay=3600)
    with daemon.wire() as wire:
        wire.send("job.wait", ids=["dead", "never"])
        daemon.call("job.wait", ids=["never"], timeout=0.1)
        daemon.call("dlq.purge", ids=["dead"])
        daemon.call("job.cancel", ids=["never"])
        states = [job["state"] for job in wire.receive()["result"]["jobs"]]
    assert states == ["dead", "cancelled"]


# --- many -----------------------------------------------------------------------------------------------------------


def test_two_thousand_jobs_run_exactly_once_each(pool: Daemon, directory: Path) -> None:
    trace = directory / "trace"
    pool.call("worker.start", count=2)
    ids = [f"job-{number}" for number in range(2000)]
    for start in range(0, 2000, 500):
        pool.call(
            "job.enqueue",
            jobs=[{"id": job_id, "command": f"echo {job_id} >> {trace}"} for job_id in ids[start : start + 500]],
        )
    assert {one["state"] for one in pool.call("job.wait", ids=ids)["jobs"]} == {"completed"}
    assert sorted(lines_of(trace)) == sorted(ids)
    assert pool.call("status.get")["counts"]["completed"] == 2000
