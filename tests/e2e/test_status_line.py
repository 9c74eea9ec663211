"""The line about the daemon that systemd is told: it follows the queue, and nothing is sent while nothing changes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Daemon, wait_for


class Systemd:
    """Hears what a daemon tells at its notification socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.lines: list[str] = []

    def line(self) -> str:
        """The newest."""
        while True:
            try:
                message = self._socket.recv(65536).decode()
            except BlockingIOError:
                return self.lines[-1] if self.lines else ""
            self.lines += [part.removeprefix("STATUS=") for part in message.split("\n") if part.startswith("STATUS=")]

    def wait_line(self, expected: str) -> None:
        wait_for(lambda: self.line() == expected, f"the line {expected!r}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(directory: Path) -> Iterator[Systemd]:
    listening = Systemd(directory / "notify")
    yield listening
    listening.close()


@pytest.fixture
def told(systemd: Systemd, directory: Path, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that systemd has started, as far as it can see; with a watchdog that it answers once in five minutes."""
    daemon = make_daemon()
    daemon.environment |= {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "600000000"}
    return daemon


def test_it_follows_workers_and_jobs(systemd: Systemd, told: Daemon) -> None:
    told.start("--workers", "2")
    systemd.wait_line("2 workers, 0 jobs running, 0 waiting, 0 dead")
    told.call("worker.stop", ids=[told.wait_workers(2)[0]["id"]])
    systemd.wait_line("1 worker, 0 jobs running, 0 waiting, 0 dead")
    told.enqueue("sleep 1000", id="first")
    told.enqueue("exit 1", id="second", max_retries=1)
    systemd.wait_line("1 worker, 1 job running, 1 waiting, 0 dead")
    told.call("job.cancel", ids=["first"])
    told.wait_state("second", "dead")
    systemd.wait_line("1 worker, 0 jobs running, 0 waiting, 1 dead")


def test_a_stop_says_what_it_waits_for(systemd: Systemd, told: Daemon, directory: Path) -> None:
    told.start("--workers", "1")
    told.enqueue(f"while [ ! -e {directory}/go ]; do sleep 0.05; done", id="long")
    told.wait_state("long", "processing")
    assert told.process is not None
    told.process.terminate()
    systemd.wait_line("stopping: 1 worker, 1 job running")
    (directory / "go").touch()
    assert told.process.wait(60) == 0


def test_it_is_told_at_most_once_a_second_and_only_when_it_is_another(systemd: Systemd, told: Daemon) -> None:
    told.start("--workers", "1")
    systemd.wait_line("1 worker, 0 jobs running, 0 waiting, 0 dead")
    before = len(systemd.lines)
    for number in range(300):
        told.enqueue("true", id=f"j{number}", delay=1000)
    systemd.wait_line("1 worker, 0 jobs running, 300 waiting, 0 dead")
    for _ in range(20):
        told.call("config.set", key="max_retries", value=4)  # commits that change nothing that is shown
    told.enqueue("true", delay=1000)
    systemd.wait_line("1 worker, 0 jobs running, 301 waiting, 0 dead")
    new = systemd.lines[before:]
    assert len(set(new)) == len(new)
    assert len(new) < 100  # of 321 commits, however slow the machine
