"""Another queue's daemon gets the socket: the workers of the first one keep their jobs, and wait for their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Daemon, is_running, lines_of, wait_for

REFUSED = "refused a worker of another queue"


@pytest.fixture
def owner(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon("--workers", "1").start()


@pytest.fixture
def other(make_daemon: Callable[..., Daemon], owner: Daemon) -> Daemon:
    """With the same socket, and not started yet."""
    daemon = make_daemon("--workers", "0", "--log-level", "debug")
    daemon.socket = owner.socket
    return daemon


def start_and_refuse(other: Daemon) -> None:
    other.start()
    wait_for(lambda: REFUSED in other.log.read_text(), "the worker to come to the other queue's daemon")


def test_a_running_job_goes_on_and_its_own_daemon_gets_its_exit_code(
    owner: Daemon, other: Daemon, directory: Path
) -> None:
    gate, ran = directory / "gate", directory / "ran"
    job = owner.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    wait_for(lambda: lines_of(ran), "the job to run")
    worker = owner.worker_of(job)
    owner.kill()
    start_and_refuse(other)
    assert is_running(worker)
    owner.socket = owner.directory / "elsewhere"
    owner.start()
    assert owner.job(job)["state"] == "processing"
    owner.wait_workers(1, "busy")
    gate.touch()
    ended = owner.wait_state(job, "dead", "completed", "failed")
    assert (ended["state"], ended["exit_code"], ended["attempts"]) == ("dead", 7, 1)
    assert len(lines_of(ran)) == 1


def test_an_exit_record_stays_for_its_own_daemon(owner: Daemon, other: Daemon, directory: Path) -> None:
    gate, ran = directory / "gate", directory / "ran"
    job = owner.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    wait_for(lambda: lines_of(ran), "the job to run")
    owner.worker_of(job)
    owner.kill()
    gate.touch()
    exits = owner.state_dir / "exits"
    (record,) = wait_for(lambda: list(exits.glob("*.json")), "the exit record")
    assert json.loads(record.read_text())["exit_code"] == 7
    start_and_refuse(other)
    assert record.exists()
    owner.socket = owner.directory / "elsewhere"
    owner.start()
    ended = owner.wait_state(job, "dead", "completed", "failed")
    assert (ended["state"], ended["exit_code"], ended["attempts"]) == ("dead", 7, 1)
    assert len(lines_of(ran)) == 1
    wait_for(lambda: not list(exits.iterdir()), "the record to be removed")


def test_a_daemon_on_a_copy_of_the_state_directory_is_another_queues(
    owner: Daemon, other: Daemon, directory: Path
) -> None:
    gate, ran = directory / "gate", directory / "ran"
    job = owner.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    wait_for(lambda: lines_of(ran), "the job to run")
    worker = owner.worker_of(job)
    other.state_dir.mkdir(mode=0o700)
    owner.call("server.backup", path=str(other.state_dir / "queue.db"))
    owner.kill()
    start_and_refuse(other)
    assert is_running(worker)
    assert other.stop() == 0
    owner.start()
    gate.touch()
    assert owner.wait_state(job, "dead", "completed")["exit_code"] == 7
    assert len(lines_of(ran)) == 1
