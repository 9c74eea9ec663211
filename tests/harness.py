"""Real daemons for tests: started in a directory of their own, and gone with all their processes afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parent.parent

CHECKOUT = f"{ROOT}{os.pathsep}{ROOT / 'protocol'}"
"""PYTHONPATH with which the packages of this checkout are found."""
BY_CLICK = (
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'queuectl'; from queuectl_client.cli import main; main()",
)
"""The command with click as its only way to read what was typed."""
CLIENT = BY_CLICK if os.environ.get("QUEUECTL_TEST_CLICK") else (sys.executable, "-P", "-m", "queuectl_client")
"""The command. $QUEUECTL_TEST_CLICK makes every test run it by click."""

PATIENCE = 60.0
"""Seconds after which a condition is taken for never coming true; only a failing test waits that long."""


def wait_for(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The first true value of `condition`; the only way in which a test waits."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain for {what}")
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False


def processes_with(text: str) -> list[int]:
    """PIDs of processes whose command line or environment holds `text` (give a test's own directory)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if text.encode() in content and is_running(int(entry.name)):
                    found.append(int(entry.name))
    return found


def processes_of(directory: Path) -> list[int]:
    """PIDs of daemons, workers and jobs in `directory`; a job with a clean environment is known by its open log."""
    found = set(processes_with(str(directory)))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and is_running(int(entry.name)):
            with contextlib.suppress(OSError):
                for descriptor in (entry / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(descriptor.readlink()).startswith(f"{directory}/"):
                            found.add(int(entry.name))
    return sorted(found)


class RefusedError(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error
        self.kind = error["data"]["kind"]


class Daemon:
    """One daemon, its directory and its processes.

    Attributes:
        directory: everything of it is below.
        socket: where it listens.
        state_dir: its state directory.
        launcher: a command that starts it (setpriv ...), and becomes it by exec.
        python: the interpreter that runs it.
        log: its standard error, as a file.
    """

    def __init__(self, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.socket = directory / "sock"
        self.log = directory / "daemon.log"
        self.arguments = arguments
        self.launcher: list[str] = []
        self.python = sys.executable
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL_")},
            "PYTHONPATH": CHECKOUT,
            "QUEUECTL_TEST": str(directory),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *arguments: str) -> Daemon:
        """Start it and wait until it answers."""
        self.spawn(*arguments)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        wait_for(self._answers, "the daemon to answer")

    def spawn(self, *arguments: str) -> None:
        command = [self.python, "-m", "queuectld", "--state-dir", str(self.state_dir), "--socket", str(self.socket)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, *command, *self.arguments, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/",
            )  # fmt: skip

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()}")
        with contextlib.suppress(OSError):
            self.call("server.info")
            return True
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def clean_up(self) -> None:
        """End everything that belongs to it, however it is."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

        def end_all() -> bool:
            left = processes_of(self.directory)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for(end_all, "every process of the daemon to be gone")

    # --- the wire ---------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(self.socket))
        except OSError:
            connection.close()
            raise
        return connection

    def wire(self) -> Wire:
        """A connection of one's own that stays open."""
        return Wire(self.connect())

    def call(self, method: str, **params: Any) -> Any:
        """The result of one call on a connection of its own.

        Raises:
            RefusedError: the daemon said no.
        """
        with self.connect() as connection:
            request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        if not line:
            raise ConnectionResetError("no answer")
        reply = json.loads(line)
        if "error" in reply:
            raise RefusedError(reply["error"])
        return reply["result"]

    def enqueue(self, command: str, **fields: Any) -> str:
        job_id: str = self.call("job.enqueue", jobs=[{"command": command, **fields}])["ids"][0]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.call("job.get", id=job_id)
        return job

    def wait_state(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job, once it is in one of the states."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        found = wait_for(look, f"job {job_id} to be {' or '.join(states)}")
        assert found is not None
        return found

    def output(self, job_id: str, attempt: int | None = None) -> str:
        params: dict[str, Any] = {"id": job_id} if attempt is None else {"id": job_id, "attempt": attempt}
        text: str = self.call("job.logs", **params)["text"]
        return text

    def workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.call("worker.list")["workers"]
        return workers

    def worker_of(self, job_id: str) -> int:
        """The PID of the worker that runs a job, once it does. A lease is stored just before it is told of."""

        def look() -> list[int]:
            return [worker["pid"] for worker in self.workers() if worker["job"] == job_id]

        return wait_for(look, f"a worker to run {job_id}")[0]

    def wait_workers(self, count: int, *states: str) -> list[dict[str, Any]]:
        """The workers, once `count` of them are in one of the states (idle, if none is given)."""

        def look() -> list[dict[str, Any]] | None:
            found = [worker for worker in self.workers() if worker["state"] in (states or ("idle",))]
            return found if len(found) == count else None

        found = wait_for(look, f"{count} workers")
        assert found is not None
        return found

    # --- the client -------------------------------------------------------------------------------------------------

    def queuectl(
        self,
        *arguments: str,
        stdin: str | None = None,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the real command against this daemon."""
        done = subprocess.run(
            [*CLIENT, "--socket", str(self.socket), *arguments],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True,
            env={**self.environment, **(environment or {})}, timeout=PATIENCE, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"queuectl {' '.join(arguments)} exited {done.returncode}: {done.stderr}")
        return done


class Wire:
    """One connection that stays open: requests without waiting, replies in the order in which they come."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._lines = connection.makefile("rb")
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._lines.close()
        self.connection.close()

    def send(self, method: str, **params: Any) -> int:
        """Ask, and do not wait; the id that the reply will carry."""
        self._next += 1
        self.send_raw(request_line(method, self._next, params))
        return self._next

    def send_raw(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self) -> dict[str, Any]:
        """The next reply.

        Raises:
            ConnectionResetError: the daemon closed the connection.
        """
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("the connection was closed")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def call(self, method: str, **params: Any) -> Any:
        """The result of one request; only while no other reply is due.

        Raises:
            RefusedError: the daemon said no.
        """
        number = self.send(method, **params)
        reply = self.receive()
        assert reply["id"] == number
        if "error" in reply:
            raise RefusedError(reply["error"])
        return reply["result"]


def request_line(method: str, number: int, params: Mapping[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def seconds(text: str) -> float:
    """UNIX seconds of a time as the wire has it."""
    return datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def running_daemon(directory: Path, *arguments: str, settings: Mapping[str, float] | None = None) -> Iterator[Daemon]:
    """A daemon that is ready, and everything of it gone afterwards."""
    daemon = Daemon(directory, *arguments)
    try:
        daemon.start()
        for key, value in (settings or {}).items():
            daemon.call("config.set", key=key, value=value)
        yield daemon
    finally:
        daemon.clean_up()


def lines_of(path: Path) -> Sequence[str]:
    """A file's lines; none if it is not there yet."""
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
