"""The bound of SECURITY.md: the daemon stays below 300 MB, whatever 64 peers ask of it at once."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from queuectl_protocol.errors import MAX_ERROR
from tests.harness import Daemon

BOUND = 300 * 1000 * 1000
PEERS = 64
MOST_SENT = 4 * 1024 * 1024
"""Bytes that one of them tries to send. The daemon stops to listen before that."""
SECONDS = 1.5
"""For so long they ask; what would be kept of it, is kept by then."""


def highest(daemon: Daemon) -> int:
    """Bytes of memory that the daemon had at most."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def line(method: str, **params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def ask(daemon: Daemon, requests: Sequence[bytes]) -> None:
    """Each peer sends one of the requests up to 64 times, as far as it is let, and reads nothing."""

    def send(connection: socket.socket, request: bytes) -> None:
        connection.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            connection.sendall(request * min(64, max(1, MOST_SENT // len(request))))
            connection.recv(1)

    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(daemon.connect()) for _ in range(PEERS)]
        threads = [
            threading.Thread(target=send, args=(connection, requests[number % len(requests)]))
            for number, connection in enumerate(connections)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + SECONDS
        for thread in threads:
            thread.join()
        time.sleep(max(0.0, until - time.monotonic()))


SHORT_IDS = [f"{number:x}" for number in range(10_000)]
WORST = {
    "tiny jobs": line("job.enqueue", jobs=[{"command": "a"}] * 10_000),
    "tiny arguments": line("job.enqueue", jobs=[{"argv": ["a"] * 100_000}]),
    "tiny variables": line("job.enqueue", jobs=[{"command": "a", "env": {f"{n:x}": "" for n in range(60_000)}}]),
    "waits": line("job.wait", ids=SHORT_IDS),
    "changes": line("job.cancel", ids=SHORT_IDS),
    "large pages": line("job.list", limit=1000),
    "a large job": line("job.get", id="large", env=True),
    "half a line": b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 1_000_000,
}


@pytest.mark.parametrize("asked", [*WORST, "all of it"])
def test_memory_stays_bounded_whatever_is_asked(daemon: Daemon, asked: str) -> None:
    later = {"command": "a", "delay": 3600}
    daemon.call("job.enqueue", jobs=[{**later, "id": job_id} for job_id in SHORT_IDS])
    large = [{**later, "cwd": "/" + "x" * 100_000}] * 8
    for _ in range(3):
        daemon.call("job.enqueue", jobs=large)
    daemon.call("job.enqueue", jobs=[{**later, "id": "large", "env": {f"V{n}": "\x01" * 9000 for n in range(18)}}])
    ask(daemon, list(WORST.values()) if asked == "all of it" else [WORST[asked]])
    assert highest(daemon) <= BOUND
    assert daemon.call("server.info")["pid"] == daemon.pid
    assert "Traceback" not in daemon.log.read_text()


def test_memory_stays_bounded_where_peers_go_and_come_again(daemon: Daemon) -> None:
    """What those have asked for who are gone counts too."""
    later = {"command": "a", "delay": 3600}
    daemon.call("job.enqueue", jobs=[{**later, "id": job_id} for job_id in SHORT_IDS])
    for _ in range(3):
        daemon.call("job.enqueue", jobs=[{**later, "cwd": "/" + "x" * 100_000}] * 8)
    daemon.call("job.enqueue", jobs=[{**later, "id": "large", "env": {f"V{n}": "\x01" * 9000 for n in range(18)}}])
    for asked, request in WORST.items():
        until = time.monotonic() + 3

        def come_again(line: bytes = request, until: float = until) -> None:
            while time.monotonic() < until:
                with contextlib.suppress(OSError), daemon.connect() as connection:
                    connection.settimeout(0.3)
                    while time.monotonic() < until:
                        connection.sendall(line)

        peers = [threading.Thread(target=come_again) for _ in range(64)]
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
        assert highest(daemon) <= BOUND, asked
    assert daemon.call("server.info")["pid"] == daemon.pid


def test_an_error_that_repeats_a_long_path_is_cut(single: Daemon) -> None:
    job_id = single.enqueue("true", cwd="/" + "x" * 131_000, max_retries=3)
    error = single.wait_state(job_id, "dead")["error"]
    assert len(error) <= MAX_ERROR
    assert error.startswith("can't enter the working directory /xxx")
    assert error.endswith(": File name too long")
    assert [attempt["error"] for attempt in single.job(job_id)["history"]] == [error] * 3
    assert len(single.log.read_text()) < 20_000


def test_a_job_of_very_many_attempts_is_told_a_thousand_at_a_time(daemon: Daemon) -> None:
    daemon.enqueue("true", id="many", delay=3600)
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database, database:
        database.executemany(
            "INSERT INTO attempts (job, number, token, worker, started_at, ended_at, outcome, error) "
            "VALUES (1, ?, 't', 'w', 1, 2, 'failed', 'why')",
            [(number,) for number in range(1, 1006)],
        )
        database.execute("UPDATE jobs SET last_attempt = 1005")
    daemon.start()
    job = daemon.job("many")
    assert [attempt["number"] for attempt in job["history"]] == [*range(6, 1006)]
    assert job["older_attempts"] == 5
    older = daemon.call("job.get", id="many", attempts_before=6)
    assert [attempt["number"] for attempt in older["history"]] == [1, 2, 3, 4, 5]
    assert "older_attempts" not in older
    assert "and 5 older attempts" in daemon.queuectl("show", "many").stdout
    assert daemon.call("job.logs", id="many", attempt=3)["attempt"] == 3


def test_long_errors_of_an_older_version_are_cut_when_they_are_told(daemon: Daemon) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "a", "id": f"j{number}"} for number in range(20)])
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database, database:
        long = "b" + "x" * 130_000 + "e"
        database.executemany(
            "INSERT INTO attempts (job, number, token, worker, started_at, ended_at, outcome, error) "
            "VALUES (1, ?, 't', 'w', 1, 2, 'failed', ?)",
            [(number, long) for number in range(1, 201)],
        )
        database.execute("UPDATE jobs SET last_attempt = 200, error = ?", (long,))
    daemon.start()
    job, page = daemon.job("j0"), daemon.call("job.list")
    errors = [job["error"], *[attempt["error"] for attempt in job["history"]], *[one["error"] for one in page["jobs"]]]
    assert {(len(error) <= MAX_ERROR, error[0], error[-1]) for error in errors} == {(True, "b", "e")}
    assert len(job["history"]) + job["older_attempts"] == 200
    assert 0 < len(page["jobs"]) < 20, "pages are weighed by what is read for them"
    assert daemon.call("job.wait", ids=["j0"], timeout=0)["jobs"][0]["error"] == job["error"]
