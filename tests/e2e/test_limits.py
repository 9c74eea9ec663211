"""Peers that mean harm, or are broken: memory stays bounded, and everybody else is served."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectl_protocol.lines import MAX_LINE
from tests.harness import Daemon, Wire, request_line, wait_for

MIB = 1024 * 1024


def resident(daemon: Daemon) -> int:
    """Bytes of memory that the daemon has."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@contextlib.contextmanager
def bounded(daemon: Daemon, mib: int) -> Iterator[None]:
    """Hold that the daemon's memory never grows by more than so much."""
    daemon.call("status.get")
    before, highest, stop = resident(daemon), [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            highest[0] = max(highest[0], resident(daemon))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    grown = (max(highest[0], resident(daemon)) - before) // MIB
    assert grown <= mib, f"the daemon grew by {grown} MiB"


def served(daemon: Daemon) -> None:
    """Others are served: a whole round of work."""
    job_id = daemon.enqueue("echo fine")
    assert daemon.call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"


def send_what_is_taken(connection: socket.socket, data: bytes) -> int:
    """Send until the daemon takes no more, or has closed; how many bytes it took."""
    connection.settimeout(1.0)
    sent = 0
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        while sent < len(data):
            sent += connection.send(data[sent : sent + 65536])
    return sent


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(pool: Daemon, seed: int) -> None:
    source = random.Random(seed)
    with pool.connect() as connection, bounded(pool, 30):
        for _ in range(20):
            send_what_is_taken(connection, source.randbytes(source.randrange(1, 40_000)) + b"\n" * source.randrange(2))
        served(pool)


def test_random_but_well_formed_json(pool: Daemon) -> None:
    """Right methods with wrong parameters of every shape: refused each, and no fault in the daemon."""
    source = random.Random(1)
    methods = [
        "server.info", "job.enqueue", "job.get", "job.list", "job.cancel", "job.retry", "job.wait", "job.logs",
        "dlq.list", "dlq.retry", "dlq.purge", "config.list", "config.get", "config.set", "config.unset",
        "worker.list", "worker.start", "worker.stop", "worker.attach", "worker.finish", "worker.heartbeat",
        "status.get",
    ]  # fmt: skip
    names = ["id", "ids", "jobs", "key", "value", "count", "limit", "after", "offset", "tail", "state", "worker"]

    def value(depth: int = 0) -> object:
        kinds = 9 if depth < 3 else 7
        match source.randrange(kinds):
            case 0:
                return None
            case 1:
                return source.choice([True, False])
            case 2:
                return source.choice([0, -1, 1, 2**31, 2**63, -(2**63), 10**40])
            case 3:
                return source.choice([0.5, -0.0, 1e308])
            case 4 | 5:
                return source.choice(["", "x", "é" * 50, "../../etc", "\0", "%", "x" * 5000, "nan", "1"])
            case 6:
                return []
            case 7:
                return [value(depth + 1) for _ in range(source.randrange(4))]
            case _:
                return {source.choice(names): value(depth + 1) for _ in range(source.randrange(4))}

    with pool.wire() as wire:
        for number in range(1500):
            method = source.choice(methods)
            params = {source.choice(names): value() for _ in range(source.randrange(3))}
            if method == "worker.start":
                params = {"count": "none"}
            if method in ("job.wait", "job.logs"):
                params["timeout" if method == "job.wait" else "attempt"] = -1
            wire.send_raw(request_line(method, number, params))
            reply = wire.receive()
            if "error" in reply:
                assert reply["error"]["data"]["kind"] != "internal_error", (method, params)
    pool.call("worker.start", count=1)  # some of it stopped all there were
    served(pool)


def test_a_line_of_two_mebibytes_is_refused_once_and_the_next_is_served(pool: Daemon) -> None:
    with pool.wire() as wire, bounded(pool, 20):
        wire.send_raw(b"x" * (2 * MIB) + b"\n")
        assert wire.receive()["error"]["data"]["kind"] == "too_large"
        assert wire.call("server.info")["pid"] == pool.pid


def enqueue_line(job: dict[str, Any]) -> bytes:
    """A request for one job, with no byte that it could do without."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "job.enqueue", "params": {"jobs": [job]}}
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["x", '"', "\x01", "\N{SNOWMAN}"], ids=["plain", "quotes", "control", "wide"])
def test_a_job_as_large_as_a_request_may_be_runs(single: Daemon, text: str) -> None:
    """What its worker is told of it is longer than that."""
    env = {"LIKE": text * 1000, "END": ""} | {f"V{number}": text * 1000 for number in range(MIB // 1000)}
    job = {"command": 'test "$V0" = "$LIKE"', "id": "large", "env": env}
    excess = len(enqueue_line(job)) - MAX_LINE
    for _ in range(excess // len(json.dumps(text * 1000, ensure_ascii=False).encode()) + 1):
        env.popitem()
    env["END"] = "x" * (MAX_LINE - len(enqueue_line(job)))
    assert len(enqueue_line(job)) == MAX_LINE
    with single.wire() as wire:
        wire.send_raw(enqueue_line(job) + b"\n")
        assert wire.receive()["result"] == {"ids": ["large"]}
    assert single.call("job.wait", ids=["large"], timeout=30)["jobs"][0]["state"] == "completed"
    assert single.call("job.get", id="large", env=True)["env"] == env
    served(single)


def test_a_job_of_more_arguments_than_the_system_takes_fails_with_the_reason(single: Daemon) -> None:
    with single.wire() as wire:
        job = {"argv": ["/bin/true"] + ["x"] * 240_000, "id": "many", "max_retries": 1}
        wire.send_raw(enqueue_line(job) + b"\n")
        assert wire.receive()["result"] == {"ids": ["many"]}
    assert single.wait_state("many", "dead")["error"] == "can't start /bin/true: Argument list too long"
    served(single)


def test_fifty_megabytes_without_a_newline(pool: Daemon) -> None:
    with pool.wire() as wire, bounded(pool, 20):
        for _ in range(50):
            wire.send_raw(b"[" * 1_000_000)
        assert wire.receive()["error"]["data"]["kind"] == "too_large"
        served(pool)
        wire.send_raw(b"\n")
        assert wire.call("server.info")["pid"] == pool.pid


def test_a_big_request_in_front_of_a_hundred_half_lines(pool: Daemon) -> None:
    wires = [pool.wire() for _ in range(100)]
    with bounded(pool, 130):
        for wire in wires:
            send_what_is_taken(wire.connection, b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 900_000)
        served(pool)
    for wire in wires:
        wire.__exit__()
    served(pool)


def test_a_peer_that_asks_for_much_and_never_reads(pool: Daemon) -> None:
    pool.call("worker.stop")
    for _ in range(10):
        pool.call("job.enqueue", jobs=[{"command": "true #" + "x" * 1000, "delay": 3600}] * 100)
    pool.call("worker.start", count=1)
    request = b"".join(request_line("job.list", number, {"limit": 1000}) for number in range(1000))
    with pool.connect() as connection, bounded(pool, 60):
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.send(request)
        for _ in range(10):
            served(pool)


def test_ten_peers_that_never_read(pool: Daemon) -> None:
    pool.call("job.enqueue", jobs=[{"command": "true #" + "x" * 10_000, "delay": 3600}] * 90)
    request = b"".join(request_line("job.list", number, {"limit": 1000}) for number in range(300))
    with contextlib.ExitStack() as stack, bounded(pool, 150):
        for _ in range(10):
            connection = stack.enter_context(pool.connect())
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(request)
        for _ in range(5):
            served(pool)
    served(pool)


def test_five_hundred_connections(pool: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(pool.wire()) for _ in range(500)]
        for wire in wires:
            wire.send("server.info")
        served(pool)
        assert {wire.receive()["result"]["pid"] for wire in wires} == {pool.pid}
    served(pool)


def test_more_connections_than_there_is_room_for_are_told_so(directory: Path) -> None:
    """Under a low limit of descriptors; those that are in are served, and so are others once there is room."""
    daemon = Daemon(directory, "--workers", "1")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        daemon.start()
        daemon.wait_workers(1)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (200, hard))  # below what it reckons with
        first = daemon.wire()
        with first, contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(daemon.connect())
            assert first.call("server.info")["pid"] == daemon.pid
            (job_id,) = first.call("job.enqueue", jobs=[{"command": "true"}])["ids"]
            assert first.call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"
        served(daemon)
    finally:
        daemon.clean_up()


def test_the_limit_of_connections(directory: Path) -> None:
    daemon = Daemon(directory, "--workers", "1")
    try:
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                ["/bin/sh", "-c", 'ulimit -n 256; exec "$@"', "sh", sys.executable, "-m", "queuectld",
                 "--state-dir", str(daemon.state_dir), "--socket", str(daemon.socket), "--workers", "1"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.environment, cwd="/",
            )  # fmt: skip
        daemon.wait_ready()
        daemon.wait_workers(1)
        kinds = []
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(daemon.wire()) for _ in range(150)]
            for wire in wires:
                with contextlib.suppress(BrokenPipeError):
                    wire.send("server.info")
                reply = wire.receive()
                kinds.append(reply["error"]["data"]["kind"] if "error" in reply else "served")
            assert set(kinds) == {"served", "busy"}
            (job_id,) = wires[0].call("job.enqueue", jobs=[{"command": "true"}])["ids"]
            assert wires[0].call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"
        wait_for(lambda: not _busy(daemon), "room")
        served(daemon)
    finally:
        daemon.clean_up()


def _busy(daemon: Daemon) -> bool:
    with daemon.wire() as wire:
        with contextlib.suppress(BrokenPipeError):
            wire.send("server.info")
        return "error" in wire.receive()


def test_peers_that_leave_in_the_middle_of_everything(pool: Daemon) -> None:
    source = random.Random(7)
    requests = b"".join(
        [
            request_line("job.list", 1, {"limit": 100}),
            request_line("job.enqueue", 2, {"jobs": [{"command": "true"}] * 3}),
            request_line("status.get", 3, {}),
            request_line("job.logs", 4, {"id": "x", "follow": True}),
            request_line("job.enqueue", 5, {"jobs": [{"command": "true", "id": "y"}]}),
        ]
    )
    for _ in range(200):
        with pool.connect() as connection:
            connection.sendall(requests[: source.randrange(1, len(requests))])
            if source.randrange(2):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served(pool)
    assert "Traceback" not in pool.log.read_text()


def test_a_peer_that_leaves_before_the_reply_has_its_change_made(pool: Daemon) -> None:
    with pool.connect() as connection:
        connection.sendall(request_line("job.enqueue", 1, {"jobs": [{"id": "left", "command": "true"}]}))

    def there() -> bool:
        return any(job["id"] == "left" for job in pool.call("job.list", limit=10)["jobs"])

    wait_for(there, "the job of the peer that left")
    pool.wait_state("left", "completed")
    assert "Traceback" not in pool.log.read_text()


def test_descriptors_sent_along_are_not_kept(pool: Daemon) -> None:
    """SCM_RIGHTS of a peer: the daemon does not read them, and the kernel closes them."""
    pool.call("server.info")
    before = len(list(Path(f"/proc/{pool.pid}/fd").iterdir()))
    reading, writing = os.pipe()
    with pool.wire() as wire:
        for number in range(20):
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": "server.info"}).encode() + b"\n"
            socket.send_fds(wire.connection, [line], [reading, writing])
            assert wire.receive()["id"] == number
        assert len(list(Path(f"/proc/{pool.pid}/fd").iterdir())) <= before + 1
    os.close(reading)
    os.close(writing)


def test_a_thousand_waits_of_one_peer_are_bounded_and_others_served(pool: Daemon) -> None:
    job_id = pool.enqueue("true", delay=3600)
    request = b"".join(request_line("job.wait", number, {"ids": [job_id]}) for number in range(1000))
    with pool.connect() as connection, bounded(pool, 30):
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.send(request)
        served(pool)
        pool.call("job.cancel", ids=[job_id])
        connection.setblocking(True)
        with Wire(connection) as wire:
            assert {wire.receive()["result"]["jobs"][0]["state"] for _ in range(1000)} == {"cancelled"}
