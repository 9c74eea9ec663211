"""How long ended jobs are kept: by age and by number; what goes with them, and what is never touched."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, RefusedError, seconds, wait_for

STATES = ("completed", "dead", "cancelled")
COMMANDS = {
    "completed": "echo said",
    "dead": "echo said; exit 1",
    "cancelled": "echo said; while :; do sleep 0.05; done",
}


def make(daemon: Daemon, state: str, count: int, **fields: Any) -> list[str]:
    """Jobs that have run, and ended in `state`, one after the other."""
    ids = [daemon.enqueue(COMMANDS[state], id=f"{state}-{n}", max_retries=1, **fields) for n in range(count)]
    for job_id in ids:
        if state == "cancelled":
            daemon.call("job.logs", id=job_id, follow=True)  # it runs, and has said what it says
            daemon.call("job.cancel", ids=[job_id])
        daemon.call("job.wait", ids=[job_id])
    return ids


def ids_of(daemon: Daemon, state: str | None = None) -> set[str]:
    return {job["id"] for job in daemon.call("job.list", state=state, limit=1000)["jobs"]}


def logs_of(daemon: Daemon) -> set[str]:
    # Not rglob: it does not bear that a directory is removed meanwhile.
    found = [name for _, inner, names in os.walk(daemon.state_dir / "logs") for name in (*inner, *names)]
    return {name for name in found if name.endswith(".log")}


def gone(daemon: Daemon, job_id: str) -> bool:
    try:
        daemon.job(job_id)
    except RefusedError as error:
        return bool(error.kind == "not_found")
    return False


@pytest.mark.parametrize("state", STATES)
def test_only_the_newest_are_kept_with_their_logs(single: Daemon, state: str) -> None:
    others = [make(single, other, 2) for other in STATES if other != state]
    made = make(single, state, 5)
    assert len(logs_of(single)) == 9, "by default all of them stay"
    single.call("config.set", key=f"keep_{state}_count", value=2)
    wait_for(lambda: len(ids_of(single, state)) <= 2, "the oldest to go")
    assert ids_of(single, state) == set(made[3:])
    for stay in others:
        assert not any(gone(single, job_id) for job_id in stay), "a setting is for one state alone"
    wait_for(lambda: len(logs_of(single)) == 6, "the logs to go with them")
    assert single.output(made[4]) == "said\n"
    assert single.call("status.get")["counts"][state] == 2
    later = single.enqueue("true")
    if state == "completed":
        wait_for(
            lambda: ids_of(single, state) == {made[4], later}, "the next oldest to go, now that one more has ended"
        )


@pytest.mark.parametrize("state", STATES)
def test_the_old_are_removed_when_their_time_is_over(single: Daemon, state: str) -> None:
    other = make(single, "dead" if state == "completed" else "completed", 1)
    (old,) = make(single, state, 1)
    ended = seconds(single.job(old)["updated_at"])
    single.call("config.set", key=f"keep_{state}", value=2)
    wait_for(lambda: gone(single, old), "the job to become too old")
    assert time.time() - ended > 2, "not before its time"
    wait_for(lambda: len(logs_of(single)) == 1, "its log to go")
    assert not gone(single, other[0])


def test_a_setting_takes_effect_at_once_however_long_the_next_look_was_away(single: Daemon) -> None:
    """The default of 30 days is looked after once an hour."""
    (old,) = make(single, "completed", 1)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 1.2, "the job to be older than a second")
    single.call("config.set", key="keep_completed", value=1)
    wait_for(lambda: gone(single, old), "it to be removed")


def test_all_attempts_go_with_their_job_and_its_id_is_free_again(single: Daemon) -> None:
    single.enqueue("echo attempt $QUEUECTL_ATTEMPT; exit 1", id="again", max_retries=3)
    single.wait_state("again", "dead")
    assert len(logs_of(single)) == 3
    single.call("config.set", key="keep_dead", value=0.01)
    wait_for(lambda: gone(single, "again"), "the job to go")
    wait_for(lambda: not logs_of(single), "its logs to go")
    for method, params in (
        ("job.get", {"id": "again"}),
        ("job.logs", {"id": "again"}),
        ("job.retry", {"ids": ["again"]}),
    ):
        with pytest.raises(RefusedError) as caught:
            single.call(method, **params)
        assert caught.value.kind == "not_found"
    assert single.enqueue("echo something else", id="again") == "again", "another content is no conflict any more"
    job = single.wait_state("again", "completed")
    assert (job["attempts"], [attempt["number"] for attempt in job["history"]]) == (1, [1])
    assert single.output("again") == "something else\n"
    assert len(logs_of(single)) == 1


def test_environments_that_nobody_uses_any_more_go_too(single: Daemon) -> None:
    secret = "do-not-keep-this"
    make(single, "completed", 2, env={"TOKEN": secret})
    kept = single.enqueue("true", delay=3600, env={"TOKEN": "kept-in-use"})
    single.call("config.set", key="keep_completed_count", value=1)
    wait_for(lambda: len(ids_of(single, "completed")) == 1, "the first to go")
    assert single.call("job.get", id="completed-1", env=True)["env"] == {"TOKEN": secret}, "the second uses it still"
    single.call("config.set", key="keep_completed", value=0.01)
    wait_for(lambda: not ids_of(single, "completed"), "the second to go")
    copy = single.directory / "copy.db"
    single.call("server.backup", path=str(copy))
    content = copy.read_bytes()
    assert b"kept-in-use" in content
    assert single.call("job.get", id=kept, env=True)["env"] == {"TOKEN": "kept-in-use"}
    assert secret.encode() not in content


def test_what_waits_or_runs_is_never_touched(pool: Daemon, directory: Path) -> None:
    pool.call("config.set", key="backoff_base", value=1000)
    gate = directory / "gate"
    running = pool.enqueue(f"until test -e {gate}; do sleep 0.01; done; echo done")
    pool.wait_state(running, "processing")
    pending = pool.enqueue("true", delay=3600)
    failed = pool.enqueue("exit 1")
    pool.wait_state(failed, "failed")
    for state in STATES:
        pool.call("config.set", key=f"keep_{state}", value=0.01)
        pool.call("config.set", key=f"keep_{state}_count", value=1)
    for _ in range(2):  # sweeps happen meanwhile: each takes an ended job along
        witness = pool.enqueue("true", priority=9)
        wait_for(lambda witness=witness: gone(pool, witness), "an ended job to go")  # type: ignore[misc]
    assert {job["id"]: job["state"] for job in pool.call("job.list")["jobs"]} == {
        running: "processing", pending: "pending", failed: "failed",
    }  # fmt: skip
    with pool.wire() as wire:
        wire.send("job.wait", ids=[running])
        gate.touch()
        reply = wire.receive()
    assert reply["result"]["jobs"][0]["state"] == "completed", "told how it ended, even if it is gone by now"


def test_a_job_that_is_removed_while_others_are_waited_for_counts_as_it_ended(single: Daemon, directory: Path) -> None:
    gates = [directory / "first", directory / "second"]
    ids = [single.enqueue(f"until test -e {gate}; do sleep 0.01; done; exit 3", max_retries=1) for gate in gates]
    single.wait_state(ids[0], "processing")
    single.call("config.set", key="keep_dead", value=0.01)
    with single.wire() as wire:
        wire.send("job.wait", ids=ids)
        assert wire.call("server.info")
        gates[0].touch()
        wait_for(lambda: gone(single, ids[0]), "the first job to be removed")
        gates[1].touch()
        summaries = wire.receive()["result"]["jobs"]
    assert [(job["id"], job["state"], job["exit_code"]) for job in summaries] == [(id_, "dead", 3) for id_ in ids]


def test_a_job_that_is_retried_in_time_is_kept(single: Daemon) -> None:
    (kept,) = make(single, "dead", 1)
    single.call("worker.stop")
    wait_for(lambda: not single.workers(), "the worker to go")
    single.call("job.retry", ids=[kept])
    single.call("config.set", key="keep_dead", value=0.01)
    single.call("config.set", key="keep_dead_count", value=1)
    witness = single.enqueue("true", delay=3600)
    single.call("config.set", key="keep_cancelled", value=0.01)
    single.call("job.cancel", ids=[witness])
    wait_for(lambda: gone(single, witness), "a sweep")
    job = single.job(kept)
    assert (job["state"], len(job["history"])) == ("pending", 1)
    assert single.output(kept) == "said\n"


def test_thousands_are_removed_in_small_steps_while_others_are_served(daemon: Daemon) -> None:
    count, kept = 6000, 7
    for first in range(0, count, 1000):
        ids = [f"job-{number:05}" for number in range(first, first + 1000)]
        daemon.call("job.enqueue", jobs=[{"id": job_id, "command": "true", "delay": 3600} for job_id in ids])
        daemon.call("job.cancel", ids=ids)
    waits: list[float] = []
    seen: list[int] = []
    done = threading.Event()

    def client() -> None:
        with daemon.wire() as wire:
            while not done.is_set():
                began = time.monotonic()
                wire.call("job.enqueue", jobs=[{"command": "true", "delay": 3600}])
                seen.append(wire.call("status.get")["counts"]["cancelled"])
                waits.append(time.monotonic() - began)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        daemon.call("config.set", key="keep_cancelled_count", value=kept)
        wait_for(lambda: daemon.call("status.get")["counts"]["cancelled"] == kept, "all but the newest to go")
    finally:
        done.set()
        thread.join()
    assert ids_of(daemon, "cancelled") == {f"job-{number:05}" for number in range(count - kept, count)}
    between = {left for left in seen if kept < left < count}
    assert len(between) >= 3, "the other client saw it happen, step by step"
    assert len(waits) == daemon.call("status.get")["counts"]["pending"]


def test_what_was_due_while_no_daemon_ran_goes_at_the_next_start(single: Daemon) -> None:
    (old,) = make(single, "completed", 1)
    single.call("config.set", key="keep_completed", value=3)
    assert single.stop() == 0
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 3.1, "the job to become too old")
    single.start()
    wait_for(lambda: gone(single, old), "it to be removed")
    wait_for(lambda: not logs_of(single), "its log to be removed")


def test_a_stranger_among_the_logs_does_not_stop_it(single: Daemon) -> None:
    (strange, normal) = make(single, "completed", 2)
    log = single.state_dir / "logs" / "0" / "1.1.log"
    log.unlink()
    (log / "below").mkdir(parents=True)
    single.call("config.set", key="keep_completed", value=0.01)
    wait_for(lambda: gone(single, strange) and gone(single, normal), "both jobs to go")
    wait_for(lambda: logs_of(single) == {"1.1.log"}, "the other log to go")
    wait_for(lambda: "a log can't be removed" in single.log.read_text(), "a word about it")
    later = single.enqueue("true")
    wait_for(lambda: gone(single, later), "it to go on")


def test_by_default_the_dead_stay_for_ever_and_the_others_for_30_days(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("--workers", "1").start()
    for state in STATES:
        make(daemon, state, 4)
    ages = {1: 29, 2: 31, 3: 3_000}
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database, database:
        for state in STATES:
            for number, days in ages.items():
                change = database.execute(
                    "UPDATE jobs SET updated_at = ? WHERE id = ?", (time.time() - days * 86_400, f"{state}-{number}")
                )
                assert change.rowcount == 1
    daemon.start()
    old = [f"{state}-{number}" for state in ("completed", "cancelled") for number in (2, 3)]
    wait_for(lambda: all(gone(daemon, job_id) for job_id in old), "the old ones to be removed")
    young = {f"{state}-{number}" for state in ("completed", "cancelled") for number in (0, 1)}
    assert ids_of(daemon) == young | {f"dead-{number}" for number in range(4)}
