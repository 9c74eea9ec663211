"""Somebody moves or removes parts of the state directory while jobs run: nothing is lost, nothing is stuck."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.harness import Daemon, lines_of, wait_for


def reload(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the reload")


def test_a_directory_in_the_place_of_a_lock_and_a_reload(single: Daemon) -> None:
    (single.state_dir / "workers" / "x.lock" / "deep").mkdir(parents=True)
    reload(single)
    single.wait_state(single.enqueue("true"), "completed")


def test_the_directory_of_the_exit_records_was_removed(single: Daemon, directory: Path) -> None:
    gate, ran = directory / "gate", directory / "ran"
    job = single.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    single.worker_of(job)
    exits = single.state_dir / "exits"
    shutil.rmtree(exits)
    reload(single)
    single.wait_workers(1, "busy")
    shutil.rmtree(exits)
    single.kill()
    gate.touch()
    wait_for(lambda: list(exits.glob("*.json")), "the exit record")
    single.start()
    assert single.wait_state(job, "dead")["exit_code"] == 7
    assert len(lines_of(ran)) == 1


def test_the_state_directory_is_away_when_a_worker_dies(single: Daemon, directory: Path) -> None:
    job = single.enqueue("sleep 1000", max_retries=1)
    worker = single.worker_of(job)
    away = directory / "away"
    single.state_dir.rename(away)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker to be gone")
    away.rename(single.state_dir)
    assert single.wait_state(job, "dead")["error"] == "worker lost"
    single.wait_state(single.enqueue("true"), "completed")


def test_the_state_directory_is_away_when_a_job_ends_without_a_daemon(single: Daemon, directory: Path) -> None:
    gate = directory / "gate"
    job = single.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    worker = single.worker_of(job)
    (child,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    away = directory / "away"
    single.kill()
    single.state_dir.rename(away)
    gate.touch()
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the job to end")
    away.rename(single.state_dir)
    wait_for(lambda: list((single.state_dir / "exits").glob("*.json")), "the exit record")
    single.start()
    assert single.wait_state(job, "dead")["exit_code"] == 7
