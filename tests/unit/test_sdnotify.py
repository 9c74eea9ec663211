"""sdnotify against real sockets and real processes."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.host import sdnotify


def _receiver(address: str) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.settimeout(10)
    receiver.bind(address)
    return receiver


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    name = f"queuectl-test-{secrets.token_hex(8)}"
    path = str(tmp_path / "notify")
    bind_to, variable = (path, path) if request.param == "path" else (f"\0{name}", f"@{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", variable)
    with _receiver(bind_to) as receiver:
        yield receiver


def test_notify_sends_all_assignments_as_one_message(systemd: socket.socket) -> None:
    assert sdnotify.notify("READY=1", "STATUS=läuft") is True
    assert systemd.recv(4096) == "READY=1\nSTATUS=läuft".encode()


def test_notify_does_not_wait_for_a_receiver_that_does_not_read(systemd: socket.socket) -> None:
    answers = [sdnotify.notify("WATCHDOG=1") for _ in range(10_000)]
    assert answers[0] is True
    assert answers[-1] is False


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/nonexistent/notify", "@queuectl-nobody", "/" + "x" * 200]
)
def test_notify_where_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert sdnotify.notify("READY=1") is False


def test_notify_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert sdnotify.notify("READY=1") is False


def test_notify_leaves_no_descriptor_behind(systemd: socket.socket) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        sdnotify.notify("WATCHDOG=1")
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 50


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "own"}, 15.0),
        ({"WATCHDOG_USEC": "500000"}, 0.25),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], expected: float | None) -> None:
    environ = {name: str(os.getpid()) if value == "own" else value for name, value in environ.items()}
    assert sdnotify.watchdog_interval(environ) == expected


ACTIVATED = """
import os, socket
from queuectld.host.sdnotify import listen_fds
fds = listen_fds(os.environ)
sockets = [socket.socket(fileno=fd) for fd in fds]
print(fds, [s.getsockname() for s in sockets], [os.get_inheritable(fd) for fd in fds],
      [name for name in os.environ if name.startswith("LISTEN_")], listen_fds(os.environ))
"""


def _activated(passed: socket.socket, pid: str) -> str:
    """What a program started as systemd does it (the socket is descriptor 3) sees."""
    script = f'exec 3<&{passed.fileno()}; LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=queuectld.socket exec "$@"'
    return subprocess.run(
        ["/bin/bash", "-c", script, "bash", sys.executable, "-c", ACTIVATED],
        pass_fds=[passed.fileno()],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    ).stdout.strip()


def test_listen_fds_takes_the_passed_socket_and_keeps_it_from_others(tmp_path: Path) -> None:
    path = str(tmp_path / "listening")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        assert _activated(listening, "$$") == f"[3] ['{path}'] [False] [] []"


def test_listen_fds_of_another_process_are_not_touched(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "listening"))
        assert _activated(listening, "1") == "[] [] [] [] []"


def test_listen_fds_without_systemd() -> None:
    assert sdnotify.listen_fds({"PATH": "/bin"}) == []


def test_clean_environment_removes_what_systemd_says_to_the_service_alone() -> None:
    names = """NOTIFY_SOCKET LISTEN_FDS LISTEN_PID LISTEN_FDNAMES WATCHDOG_USEC WATCHDOG_PID INVOCATION_ID
        JOURNAL_STREAM SYSTEMD_EXEC_PID
        STATE_DIRECTORY RUNTIME_DIRECTORY CONFIGURATION_DIRECTORY CREDENTIALS_DIRECTORY"""
    told = dict.fromkeys(names.split(), "x")
    kept = {"PATH": "/bin", "HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0", "LISTEN_ADDRESS": "0.0.0.0"}
    given = told | kept
    assert sdnotify.clean_environment(given) == kept
    assert given == told | kept
