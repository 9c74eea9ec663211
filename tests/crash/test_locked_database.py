"""Another program at work on the database's file, sqlite3(1) for example: the daemon waits, and lives on."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from queuectld.store.sqlite.connection import BUSY_SECONDS
from tests.harness import Daemon, RefusedError, is_running, wait_for


@contextmanager
def locked(daemon: Daemon) -> Iterator[None]:
    """Nobody else can write to the database meanwhile."""
    with closing(sqlite3.connect(daemon.state_dir / "queue.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_request_waits_for_the_other_program(pool: Daemon) -> None:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(pool.enqueue("true", id="waits")))
    with locked(pool):
        thread.start()
        assert pool.call("status.get")["counts"]["pending"] == 0, "what reads does not wait"
        assert said == []
    thread.join()
    assert said == ["waits"]
    pool.wait_state("waits", "completed")


def test_locked_out_for_long_it_refuses_and_goes_on(pool: Daemon) -> None:
    gate = pool.directory / "gate"
    running = pool.enqueue(f"until [ -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    pool.wait_state(running, "processing")
    refused: list[RefusedError] = []

    def ask(method: str, **params: object) -> None:
        with pytest.raises(RefusedError) as refusal:
            pool.call(method, **params)
        refused.append(refusal.value)

    asking = [
        threading.Thread(target=ask, args=("job.enqueue",), kwargs={"jobs": [{"command": "true", "id": "new"}]}),
        threading.Thread(target=ask, args=("worker.start",), kwargs={"count": 1}),
        threading.Thread(target=ask, args=("job.cancel",), kwargs={"ids": [running]}),
    ]
    with locked(pool):
        for thread in asking:
            thread.start()
        gate.touch()  # an outcome that can't be stored is kept by its worker
        for thread in asking:
            thread.join(BUSY_SECONDS * 12)
        assert not [thread for thread in asking if thread.is_alive()], "a request waits for a bounded time"
        assert is_running(pool.pid)
    assert {refusal.kind for refusal in refused} == {"busy"}
    assert all("another program" in refusal.error["message"] for refusal in refused)
    assert pool.wait_state(running, "dead")["exit_code"] == 7
    assert pool.call("worker.list")["desired"] == 2
    assert pool.enqueue("true", id="new") == "new", "it was not enqueued before"
    wait_for(lambda: pool.job("new")["state"] == "completed", "all to go on")
    assert pool.stop() == 0
    assert "Traceback" not in pool.log.read_text()
