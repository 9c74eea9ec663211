"""A real worker against a daemon that the test plays: what it does with messages in an order that is hard to meet."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectl_protocol.jobs import MAX_SECONDS
from tests.harness import PATIENCE, ROOT, Wire, wait_for

LEASE = {"job": 1, "attempt": 1, "token": "t", "id": "job", "queue": "default", "max_retries": 1, "timeout": 0,
         "log_max_bytes": 0, "command": "exit 7"}  # fmt: skip


@pytest.fixture
def listener(directory: Path) -> Iterator[socket.socket]:
    for name in ("logs", "workers", "exits"):
        (directory / name).mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(PATIENCE)
        listening.bind(str(directory / "sock"))
        listening.listen()
        yield listening


@pytest.fixture
def worker(directory: Path, listener: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "queuectld.worker", "w1", str(directory / "sock"), str(directory), "", "mark"], cwd=ROOT
    )
    yield process
    process.kill()
    process.wait()


def accept(listener: socket.socket) -> Wire:
    connection, _address = listener.accept()
    connection.settimeout(PATIENCE)
    return Wire(connection)


def answer(wire: Wire, request: dict[str, Any], **result: Any) -> None:
    wire.send_raw(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n")


def tell(wire: Wire, method: str, **params: Any) -> None:
    wire.send_raw(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n")


def unread(wire: Wire) -> int:
    """Bytes that the other end has not read, or a bit more than that; unix(7), SIOCOUTQ."""
    return int(struct.unpack("i", fcntl.ioctl(wire.connection, termios.TIOCOUTQ, b"\0" * 4))[0])


def come(wire: Wire) -> int:
    """Bytes that have come and are not read; unix(7), SIOCINQ."""
    return int(struct.unpack("i", fcntl.ioctl(wire.connection, termios.FIONREAD, b"\0" * 4))[0])


def room_for(line: bytes) -> int:
    """How many such lines a connection takes while nobody reads."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        count = 0
        try:
            while one.send(line) == len(line):
                count += 1
        except BlockingIOError:
            pass
        return count


def test_an_exit_that_overtakes_the_answer_to_its_attach_costs_no_attempt(
    listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    with accept(listener) as wire:
        attach = wire.receive()
        assert attach["method"] == "worker.attach"
        tell(wire, "worker.exit")
        wait_for(lambda: unread(wire) == 0, "the worker to hear it")
        answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark", lease=LEASE)
        finish = wire.receive()
        assert finish["method"] == "worker.finish"
        assert finish["params"]["ended"]["exit_code"] == 7
        answer(wire, finish)
        assert worker.wait(PATIENCE) == 0


def test_a_lease_that_meets_a_signal_on_its_way_does_not_run(
    directory: Path, listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    with accept(listener) as wire:
        attach = wire.receive()
        worker.send_signal(signal.SIGTERM)
        caught = Path(f"/proc/{worker.pid}/status")
        wait_for(lambda: "SigPnd:\t0000000000000000" in caught.read_text(), "the signal to be taken")
        lease = LEASE | {"command": f"touch {directory}/ran"}
        answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark", lease=lease)
        ended = wire.receive()["params"]["ended"]
        assert (ended["outcome"], ended["unasked"]) == ("interrupted", False)
        assert not (directory / "ran").exists()


@pytest.mark.parametrize("leased", [True, False])
def test_a_signal_does_not_end_a_worker_that_may_have_been_leased_a_job(
    listener: socket.socket, worker: subprocess.Popen[bytes], leased: bool
) -> None:
    """A lease may be on its way: gone without a word, the worker would count as lost with a job that it never ran."""
    with accept(listener) as first:
        answer(first, first.receive(), heartbeat_interval=60, kill_grace=1, mark="mark")
        wait_for(lambda: unread(first) == 0, "the worker to be attached")
        worker.send_signal(signal.SIGTERM)
        with accept(listener) as again:
            attach = again.receive()
            assert (attach["method"], attach["params"]["exiting"]) == ("worker.attach", True)
            if leased:
                answer(again, attach, heartbeat_interval=60, kill_grace=1, mark="mark", lease=LEASE)
                finish = again.receive()
                ended = finish["params"]["ended"]
                assert (ended["outcome"], ended.get("unasked", False)) == ("interrupted", False)
                answer(again, finish)
            else:
                answer(again, attach, heartbeat_interval=60, kill_grace=1, mark="mark")
            tell(again, "worker.exit")
            assert worker.wait(PATIENCE) == 0


def test_a_signal_ends_a_worker_whose_daemon_does_not_answer(
    listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    with accept(listener) as wire:
        answer(wire, wire.receive(), heartbeat_interval=60, kill_grace=1, mark="mark")
        wait_for(lambda: unread(wire) == 0, "the worker to be attached")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0


def test_a_timeout_longer_than_the_system_can_wait_at_once(
    listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    """Nothing else is waited for while the answer to an attach is due."""
    with accept(listener) as wire:
        answer(
            wire,
            wire.receive(),
            heartbeat_interval=60,
            kill_grace=1,
            mark="mark",
            lease=LEASE | {"timeout": MAX_SECONDS, "command": "exec sleep 1000"},
        )
    with accept(listener) as wire:
        attach = wire.receive()
        stat = Path(f"/proc/{worker.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] in "SZ", "it to wait")
        answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark")
        tell(wire, "attempt.end", attempt={"job": 1, "attempt": 1, "token": "t"}, outcome="cancelled", kill_grace=1)
        assert wire.receive()["params"]["ended"]["outcome"] == "cancelled"


def refuse(wire: Wire, request: dict[str, Any], code: int, kind: str) -> None:
    error = {"code": code, "message": "no", "data": {"kind": kind, "hint": ""}}
    wire.send_raw(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode() + b"\n")


def test_who_is_unknown_to_its_queue_leaves_its_lock_to_the_daemon(
    directory: Path, listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    """Found by the kill storm: another worker's log got the inode of the removed lock, and that worker was ended."""
    with accept(listener) as wire:
        attach = wire.receive()
        assert attach["params"]["mark"] == "mark"
        answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark", unknown=True)
        assert worker.wait(PATIENCE) == 0
    assert (directory / "workers" / "w1.lock").exists()


@pytest.mark.parametrize(
    "kind", [(-32006, "forbidden"), (-32602, "invalid_params"), (-32001, "not_found"), (-32601, "method_not_found")]
)
def test_a_refusal_by_whatever_daemon_ends_nothing(
    directory: Path, listener: socket.socket, worker: subprocess.Popen[bytes], kind: tuple[int, str]
) -> None:
    gate = directory / "gate"
    lease = {**LEASE, "command": f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7"}
    with accept(listener) as wire:
        answer(wire, wire.receive(), heartbeat_interval=60, kill_grace=1, mark="mark", lease=lease)
        wait_for(lambda: unread(wire) == 0, "the worker to hear it")
        wait_for(lambda: list((directory / "logs").rglob("*")), "the job to be started")
    with accept(listener) as wire:
        attach = wire.receive()
        assert attach["params"]["running"]["token"] == "t"
        refuse(wire, attach, *kind)
    with accept(listener) as wire:
        attach = wire.receive()
        answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="another", stale=True)
    gate.touch()
    record = directory / "exits" / "1.1.json"
    wait_for(record.exists, "the exit record")
    while True:
        with accept(listener) as wire:
            attach = wire.receive()
            if attach["params"].get("ended") is None:  # it came back before its job had ended
                refuse(wire, attach, *kind)
                continue
            assert attach["params"]["ended"]["exit_code"] == 7
            assert record.exists()
            answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark")
            wait_for(lambda: not record.exists(), "the record to be removed")
            return


def test_a_worker_does_not_wait_for_a_daemon_that_does_not_read(
    directory: Path, listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    """As one that is stopped. Found: heartbeats filled the connection, and a timeout of 50 s came after 75 s."""
    gate = directory / "gate"
    lease = {**LEASE, "command": f"while [ ! -e {gate} ]; do sleep 0.02; done; sleep 1000", "timeout": 0.1}
    with accept(listener) as wire:
        attach = wire.receive()
        answer(wire, attach, heartbeat_interval=0.001, kill_grace=1, mark="mark")
        beat = wire.receive()
        assert beat["method"] == "worker.heartbeat"
        line = json.dumps(beat, separators=(",", ":")).encode() + b"\n"
        full = room_for(line) * len(line)
        wait_for(lambda: come(wire) >= full * 0.9, "the connection to be full")
        gate.touch()
        tell(wire, "attempt.start", lease=lease)
        record = directory / "exits" / "1.1.json"
        wait_for(record.exists, "the exit record")
        assert json.loads(record.read_text())["outcome"] == "timeout"
        while (message := wire.receive())["method"] == "worker.heartbeat":
            pass
        assert (message["method"], message["params"]["ended"]["outcome"]) == ("worker.finish", "timeout")
        answer(wire, message)
        wait_for(lambda: not record.exists(), "the record to be removed")


def test_a_worker_does_not_wait_where_too_many_wait_already(
    directory: Path, listener: socket.socket, worker: subprocess.Popen[bytes]
) -> None:
    gate = directory / "gate"
    lease = {**LEASE, "command": f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7"}
    clients: list[socket.socket] = []
    with accept(listener) as wire:
        answer(wire, wire.receive(), heartbeat_interval=60, kill_grace=1, mark="mark", lease=lease)
        wait_for(lambda: list((directory / "logs").rglob("*")), "the job to be started")
        listener.listen(0)
        while len(clients) < 1000:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            try:
                clients[-1].connect(listener.getsockname())
            except BlockingIOError:
                break
    gate.touch()
    wait_for((directory / "exits" / "1.1.json").exists, "the exit record")
    listener.listen(100)
    for client in clients:
        client.close()
    attach: dict[str, Any] = {}
    while not attach:
        with accept(listener) as wire, contextlib.suppress(ConnectionResetError):
            attach = wire.receive()
            answer(wire, attach, heartbeat_interval=60, kill_grace=1, mark="mark")
    assert attach["params"]["ended"]["exit_code"] == 7
