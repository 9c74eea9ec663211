"""The socket's file goes, is replaced, or is elsewhere after a restart: the daemon is found all the same."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import shell_environment
from tests.harness import Daemon, lines_of, processes_with, wait_for


def address_of(daemon: Daemon) -> str:
    return (daemon.state_dir / "address").read_text()


@pytest.fixture
def placed(make_daemon: Callable[..., Daemon]) -> Daemon:
    """One worker; the socket is in a directory of its own."""
    daemon = make_daemon("--workers", "1")
    daemon.socket = daemon.directory / "run" / "queuectl" / "sock"
    return daemon.start()


def listens(daemon: Daemon) -> bool:
    try:
        daemon.connect().close()
    except OSError:
        return False
    return True


def test_a_socket_that_was_removed_comes_back(placed: Daemon, directory: Path) -> None:
    gate = directory / "gate"
    job = placed.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    worker = placed.worker_of(job)
    shutil.rmtree(placed.directory / "run")
    wait_for(lambda: listens(placed), "the daemon to listen again")
    assert placed.call("server.info")["socket"] == str(placed.socket)
    placed.call("worker.start", count=1)
    placed.wait_state(placed.enqueue("true"), "completed")  # a new worker found its way
    os.kill(placed.pid, signal.SIGHUP)
    wait_for(lambda: placed.call("server.info")["generation"] == 1, "the reload")
    gate.touch()
    assert placed.wait_state(job, "dead")["exit_code"] == 7
    assert worker in [one["pid"] for one in placed.workers()]
    assert placed.stop() == 0
    assert not placed.socket.exists()
    assert not (placed.state_dir / "address").exists()


def test_until_it_comes_back_people_are_told_that_the_daemon_runs(placed: Daemon) -> None:
    os.kill(placed.pid, signal.SIGSTOP)  # so that it does not come back before it was looked for
    placed.socket.unlink()
    done = placed.queuectl("status", check=False, environment={"QUEUECTL_STATE_DIR": str(placed.state_dir)})
    os.kill(placed.pid, signal.SIGCONT)
    assert done.returncode == 3
    assert done.stderr == (
        f"queuectl: no daemon answers at {placed.socket}, though one runs (PID {placed.pid})\n"
        "  hint: a daemon whose socket is gone makes it again within seconds: try again in a moment\n"
    )


def test_where_the_socket_can_not_be_bound_again_the_state_directory_has_it(placed: Daemon, directory: Path) -> None:
    """As after a logout: nobody but root can make /run/user/UID."""
    gate, home = directory / "gate", placed.socket
    job = placed.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    placed.worker_of(job)
    run = placed.directory / "run"
    run.rename(placed.directory / "old")
    run.write_text("in the way")
    spare = placed.state_dir / "daemon.sock"
    wait_for(lambda: address_of(placed) == f"{spare}\n", "the daemon to listen elsewhere")
    placed.socket = spare
    placed.call("worker.start", count=1)
    placed.wait_state(placed.enqueue("true"), "completed")
    os.kill(placed.pid, signal.SIGHUP)
    wait_for(lambda: placed.call("server.info")["generation"] == 1, "the reload")
    placed.wait_workers(1, "busy")
    run.unlink()
    placed.socket = home
    wait_for(lambda: listens(placed), "the daemon to be back where it was asked to be")
    wait_for(lambda: address_of(placed) == f"{home}\n", "the address to be written")
    assert not spare.exists()
    gate.touch()
    assert placed.wait_state(job, "dead")["exit_code"] == 7


def test_a_socket_that_another_program_has_taken_is_its_own(placed: Daemon) -> None:
    placed.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(placed.socket))
        other.listen()
        spare = placed.state_dir / "daemon.sock"
        wait_for(lambda: address_of(placed) == f"{spare}\n", "the daemon to listen elsewhere")
        identity = placed.socket.stat().st_ino
        home, placed.socket = placed.socket, spare
        placed.wait_state(placed.enqueue("true"), "completed")
        assert home.stat().st_ino == identity


def test_a_daemon_that_is_killed_may_come_back_at_another_socket(placed: Daemon, directory: Path) -> None:
    gate, ran = directory / "gate", directory / "ran"
    job = placed.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    wait_for(lambda: lines_of(ran), "the job to run")
    placed.worker_of(job)
    placed.kill()
    placed.socket = placed.directory / "elsewhere"
    placed.start()
    placed.wait_workers(1, "busy")
    gate.touch()
    assert placed.wait_state(job, "dead")["exit_code"] == 7
    assert len(lines_of(ran)) == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_anything_may_be_in_the_place_of_the_address(placed: Daemon, make: Callable[[Path], None]) -> None:
    """A job can put it there; workers go by what they were started with then."""
    file = placed.state_dir / "address"
    file.unlink()
    make(file)
    placed.call("worker.start", count=1)
    placed.wait_workers(2)
    placed.wait_state(placed.enqueue("true"), "completed")
    os.kill(placed.pid, signal.SIGHUP)
    wait_for(lambda: placed.call("server.info")["generation"] == 1, "the reload")
    placed.wait_state(placed.enqueue("true"), "completed")


def test_a_refused_start_says_where_the_running_daemon_listens(
    placed: Daemon, make_daemon: Callable[..., Daemon]
) -> None:
    second = make_daemon()
    second.state_dir = placed.state_dir
    second.spawn()
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert f"listens on {placed.socket}" in second.log.read_text()


# --- the client -----------------------------------------------------------------------------------------------------


class Person:
    """Somebody with a home directory, who names no socket and no state directory."""

    def __init__(self, directory: Path) -> None:
        self.home, self.runtime = directory / "home", directory / "runtime"
        self.runtime.mkdir(mode=0o700, parents=True)
        self.state_dir = self.home / ".local" / "state" / "queuectl"
        self.environment = {**shell_environment(directory), "HOME": str(self.home)}

    def queuectl(self, *arguments: str, logged_in: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **({"XDG_RUNTIME_DIR": str(self.runtime)} if logged_in else {})}
        return subprocess.run(
            ["queuectl", *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=60, cwd="/",
        )  # fmt: skip


@pytest.fixture
def person(directory: Path) -> Iterator[Person]:
    somebody = Person(directory)
    yield somebody

    def end_all() -> bool:
        left = processes_with(str(directory))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(end_all, "every process to be gone")


def test_a_daemon_at_another_socket_is_found_by_its_state_directory(person: Person, directory: Path) -> None:
    elsewhere = directory / "other" / "sock"
    said = person.queuectl("--socket", str(elsewhere), "daemon", "start", "--workers", "1").stdout
    pid = int(said.split("PID ")[1].split(",")[0])
    assert said == f"Started: PID {pid}, socket {elsewhere}\n"
    assert person.queuectl("daemon", "start").stdout == f"Already running: PID {pid}, socket {elsewhere}\n"
    third = directory / "third"
    again = person.queuectl("--socket", str(third), "daemon", "start")
    assert again.stdout == f"Already running: PID {pid}, socket {elsewhere}\n"
    assert person.queuectl("run", "--", "true").returncode == 0
    refused = person.queuectl("--socket", str(third), "status")
    assert refused.returncode == 3
    assert f"the daemon of {person.state_dir} listens on {elsewhere}: `queuectl --socket {elsewhere}" in refused.stderr
    assert person.queuectl("--socket", str(third), "daemon", "stop").returncode == 3
    named = ("--state-dir", str(person.state_dir))
    assert str(pid) in person.queuectl("--socket", str(third), "daemon", "status", *named).stdout
    assert person.queuectl("daemon", "reload", *named).stdout.startswith(f"Reloaded: PID {pid}")
    assert person.queuectl("daemon", "stop").stdout == f"Stopped: PID {pid}\n"
    assert person.queuectl("daemon", "stop", *named).returncode == 3


def test_a_daemon_that_does_not_answer_is_stopped_by_its_lock(person: Person) -> None:
    said = person.queuectl("daemon", "start").stdout
    pid = int(said.split("PID ")[1].split(",")[0])
    os.kill(pid, signal.SIGSTOP)  # so that it does not bind its socket again
    (person.runtime / "queuectl" / "queuectl.sock").unlink()
    process = os.pidfd_open(pid)
    with subprocess.Popen(
        ["queuectl", "daemon", "stop"], env={**person.environment, "XDG_RUNTIME_DIR": str(person.runtime)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as stopping:  # fmt: skip
        status = Path(f"/proc/{pid}/status")
        wait_for(lambda: int(status.read_text().split("ShdPnd:")[1].split()[0], 16) & (1 << 14), "SIGTERM to be sent")
        os.kill(pid, signal.SIGCONT)
        output, _ = stopping.communicate(timeout=60)
    assert output == f"Stopped: PID {pid}\n"
    assert select.select([process], [], [], 60)[0]
    os.close(process)


def test_who_is_no_daemon_any_more_is_not_stopped(person: Person) -> None:
    """The PID in the lock's file may be another process's by now."""
    person.state_dir.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as other:
        (person.state_dir / "daemon.lock").write_text(f"{other.pid}\n")
        assert person.queuectl("daemon", "stop").returncode == 3
        assert other.poll() is None
        other.kill()
