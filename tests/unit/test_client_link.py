"""The way to the daemon, when what listens there is no daemon of ours, or goes away. Real sockets, other programs."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queuectl_client import Client, ClientError, NoDaemon
from queuectl_client.errors import BadRequest, OutcomeUnknown, WrongProtocol
from queuectl_client.wire.link import _nobody
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.version import PROTOCOL, __version__

Serve = Callable[[socket.socket], None]


class Stranger:
    """A program that listens where a daemon would, and treats each connection as it was told."""

    def __init__(self, path: Path, serve: Serve, uid: int) -> None:
        self.path = path
        self.connections = 0
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        # Whose socket it is, is settled when it begins to listen.
        own = os.geteuid()
        os.seteuid(uid)
        self._listening.listen()
        os.seteuid(own)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with connected, contextlib.suppress(OSError):  # the client went away first
                self._serve(connected)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # close() alone does not wake accept()
        self._listening.close()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


@pytest.fixture
def stranger(directory: Path) -> Iterator[Callable[..., Stranger]]:
    made: list[Stranger] = []

    def make(serve: Serve, uid: int | None = None) -> Stranger:
        made.append(Stranger(directory / "s.sock", serve, os.geteuid() if uid is None else uid))
        return made[-1]

    yield make
    for one in made:
        one.close()


def greet(connected: socket.socket, protocol: int = PROTOCOL, pid: int = 1) -> None:
    """Answer `server.info`."""
    request = json.loads(connected.makefile("rb").readline())
    assert request["method"] == "server.info"
    result = {"protocol": protocol, "version": "9.9", "pid": pid}
    connected.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n")


def hang_up(connected: socket.socket) -> None:
    connected.recv(1)


def until_the_end(connected: socket.socket) -> None:
    while connected.recv(65536):
        pass


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, PROTOCOL - 1])
def test_another_protocol_version_is_refused_with_both_named(stranger: Callable[..., Stranger], protocol: int) -> None:
    path = stranger(lambda connected: greet(connected, protocol)).path
    with Client(path) as client, pytest.raises(WrongProtocol) as caught:
        client.status()
    assert f"protocol {protocol} (version 9.9)" in caught.value.message
    assert f"{PROTOCOL} (version {__version__})" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 400 Bad Request\n", b"\xff\xfe\n", b"[]\n", b'{"id": 77, "result": {}}\n']
)
def test_another_program_is_no_daemon(stranger: Callable[..., Stranger], answer: bytes) -> None:
    def serve(connected: socket.socket) -> None:
        connected.recv(1)
        connected.sendall(answer)
        until_the_end(connected)

    path = stranger(serve).path
    with Client(path) as client, pytest.raises(ProtocolError, match="does not speak this protocol"):
        client.status()


def test_one_that_never_answers_is_as_good_as_none(stranger: Callable[..., Stranger]) -> None:
    path = stranger(until_the_end).path
    with Client(path, timeout=0.1) as client, pytest.raises(NoDaemon, match="does not answer"):
        client.status()


def test_one_that_always_hangs_up_is_tried_again_for_a_while(stranger: Callable[..., Stranger]) -> None:
    other = stranger(hang_up)
    with Client(other.path, patience=0.3) as client, pytest.raises(NoDaemon, match="closes the connection"):
        client.status()
    assert other.connections > 1


def test_a_refused_connection_is_an_error_of_the_daemon(stranger: Callable[..., Stranger]) -> None:
    def serve(connected: socket.socket) -> None:
        error = {"code": -32006, "message": "not for you", "data": {"kind": "forbidden", "hint": "ask"}}
        connected.sendall(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n")
        until_the_end(connected)

    path = stranger(serve).path
    with Client(path) as client, pytest.raises(ProtocolError) as caught:
        client.status()
    assert (caught.value.kind, caught.value.message, caught.value.hint) == ("forbidden", "not for you", "ask")


def test_a_busy_daemon_is_asked_again(stranger: Callable[..., Stranger]) -> None:
    def serve(connected: socket.socket) -> None:
        if other.connections == 1:
            error = {"code": -32005, "message": "busy", "data": {"kind": "busy"}}
            connected.sendall(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n")
            until_the_end(connected)
        else:
            greet(connected, PROTOCOL + 1)

    other = stranger(serve)
    with Client(other.path) as client, pytest.raises(WrongProtocol):
        client.status()
    assert other.connections == 2


def lose_the_answer(connected: socket.socket) -> None:
    greet(connected)
    connected.recv(65536)


def test_what_must_not_be_sent_twice_is_not(stranger: Callable[..., Stranger]) -> None:
    other = stranger(lose_the_answer)
    with Client(other.path) as client, pytest.raises(OutcomeUnknown, match=r"worker\.start.*may have been carried out"):
        client.start_workers(1)
    assert other.connections == 1


def test_one_that_greets_and_hangs_up_is_given_up_after_a_while(stranger: Callable[..., Stranger]) -> None:
    other = stranger(lose_the_answer)
    with Client(other.path, patience=0.3) as client, pytest.raises(NoDaemon, match="again and again"):
        client.wait(["it"])
    assert other.connections > 1


def test_each_restart_is_waited_for_anew(stranger: Callable[..., Stranger]) -> None:
    patience = 0.3
    answer_from = time.monotonic() + 3 * patience

    def serve(connected: socket.socket) -> None:
        # Each connection meets another daemon, which goes while its answer is waited for.
        greet(connected, pid=other.connections)
        request = json.loads(connected.makefile("rb").readline())
        if time.monotonic() > answer_from:
            reply = {"jsonrpc": "2.0", "id": request["id"], "result": {"jobs": []}}
            connected.sendall(json.dumps(reply).encode() + b"\n")
            until_the_end(connected)

    other = stranger(serve)
    with Client(other.path, patience=patience) as client:
        assert client.wait(["it"]) == []


def test_what_may_be_sent_twice_is_sent_again_with_the_same_id(stranger: Callable[..., Stranger]) -> None:
    seen: list[bytes] = []

    def serve(connected: socket.socket) -> None:
        lines = connected.makefile("rb")
        request = json.loads(lines.readline())
        result = {"protocol": PROTOCOL, "version": "9.9"}
        connected.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n")
        request = json.loads(lines.readline())
        seen.append(json.dumps(request["params"]).encode())
        if other.connections < 3:
            return
        ids = [job["id"] for job in request["params"]["jobs"]]
        connected.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"ids": ids}}).encode() + b"\n")
        until_the_end(connected)

    other = stranger(serve)
    with Client(other.path) as client:
        job = client.enqueue(command="true")
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert json.loads(seen[0])["jobs"][0]["id"] == job


def test_a_request_that_is_too_long_is_not_sent(stranger: Callable[..., Stranger]) -> None:
    def serve(connected: socket.socket) -> None:
        greet(connected)
        assert connected.recv(1) == b""

    path = stranger(serve).path
    with Client(path) as client, pytest.raises(BadRequest, match="bytes long"):
        client.enqueue(command="true", env={str(n): "x" * 100_000 for n in range(12)})


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path_is_named(path: str) -> None:
    with Client(path) as client, pytest.raises(ClientError):
        client.status()


def test_text_that_is_not_unicode_is_not_sent(stranger: Callable[..., Stranger]) -> None:
    def serve(connected: socket.socket) -> None:
        greet(connected)
        until_the_end(connected)

    path = stranger(serve).path
    with Client(path) as client, pytest.raises(BadRequest):
        client.enqueue(command="echo \udcff")


def test_a_guessed_socket_of_another_user_is_not_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch, stranger: Callable[..., Stranger]
) -> None:
    monkeypatch.delenv("QUEUECTL_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    own = os.getuid()
    path = stranger(until_the_end, uid=65534 if own == 0 else own).path
    if own != 0:
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
    (directory / "queuectl").mkdir()
    path.rename(directory / "queuectl" / "queuectl.sock")
    with Client() as client, pytest.raises(NoDaemon, match="belongs to another user"):
        client.status()
    # One that was named is used: here, it does not answer.
    with (
        Client(directory / "queuectl" / "queuectl.sock", timeout=0.1) as client,
        pytest.raises(NoDaemon, match="answer"),
    ):
        client.status()


def test_without_permission_the_group_is_named_and_the_next_login(directory: Path) -> None:
    group = grp.getgrgid(directory.stat().st_gid).gr_name
    path = directory / "s.sock"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root is denied nothing by a mode
    for present in (False, True):
        if present:
            path.touch()
        error = _nobody([(str(path), denied)])
        assert error.message == f"no permission to connect to {path}"
        assert f"usermod -aG {group} $USER" in error.hint
        assert "from your next login on" in error.hint
