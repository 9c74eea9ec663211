"""The program that is installed now, checked as a whole before the running daemon lets go: `queuectld --check`.

After execve(2) there is no way back. What would only fail there (an import, the configuration, the database and its
migration) is tried before, in a process of its own, and so is what a reload can't change.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

import queuectl_protocol
import queuectld
from queuectl_protocol.version import __version__
from queuectld.attempt_files import address
from queuectld.host import directory, socket_file
from queuectld.host.start_error import StartError

VARIABLE = "QUEUECTLD_RUNNING"
"""Where the running daemon tells the check what it is."""

CHECK_SECONDS = 300.0
"""A database of gigabytes is copied for the trial of a migration."""

_PASSED = f"queuectld {__version__}: ok"
_NOT_FOR_A_CHECK = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_RESTART = "restart the daemon for that, or take the change back"


class Running(msgspec.Struct, frozen=True):
    """The running daemon, as far as a reload can't change it."""

    state_dir: str
    socket: str
    """As it was asked for; "" where nobody did."""
    cgroup: str
    """As `socket`."""


def check(running_now: Running, group: str | None, rehearse: Callable[[Path], None], environ: Mapping[str, str]) -> str:
    """Try everything that a start needs and that changes nothing.

    Args:
        running_now: what a daemon that is started now would be.
        group: the socket's, by name or number.
        rehearse: given the database's path, tries to open and to migrate it.
        environ: may tell of the running daemon whose reload is checked.

    Returns:
        What to print.

    Raises:
        StartError: what would keep it from starting, or can't be changed by a reload.
        StorageError: the same for the database.
    """
    for package in (queuectl_protocol, queuectld):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    if given := environ.get(VARIABLE):
        _compare(msgspec.json.decode(given, type=Running), running_now)
    socket_file.group_id(group)
    state_dir = Path(running_now.state_dir)
    if state_dir.exists():
        directory.check_state_dir(state_dir)
    rehearse(state_dir / "queue.db")
    notes = []
    written = address.read(state_dir)
    if written is not None and running_now.socket not in ("", str(written)):
        notes.append(f"note: a daemon that runs already listens on {written}; only a restart changes that")
    return "\n".join([*notes, _PASSED])


def _compare(running: Running, successor: Running) -> None:
    if Path(running.state_dir).resolve() != Path(successor.state_dir).resolve():
        raise StartError(
            f"a reload can't change the state directory from {running.state_dir} to {successor.state_dir}", _RESTART
        )
    for what, before, after in (
        ("socket", running.socket, successor.socket),
        ("cgroup", running.cgroup, successor.cgroup),
    ):
        if before != after:
            raise StartError(
                f"a reload can't change the {what} from {before or 'the default'} to {after or 'the default'}", _RESTART
            )


class Trial:
    """One check of the installed program, in a process of its own.

    Args:
        command: how this process was started.
        running: what this process is.
        environ: of this process.
    """

    def __init__(self, command: Sequence[str], running: Running, environ: Mapping[str, str]) -> None:
        self._command = [*command, "--check"]
        self._environment = {name: value for name, value in environ.items() if name not in _NOT_FOR_A_CHECK}
        self._environment[VARIABLE] = msgspec.json.encode(running).decode()
        self._process: subprocess.Popen[str] | None = None
        self._given_up = False

    def fault(self) -> str:
        """Why the installed program can't take over from this process; "" if it can. Takes seconds."""
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=self._environment,
            )
        except OSError as error:
            return str(error)
        with self._process as process:
            if self._given_up:  # asked after the process was set: `give_up` sees to the process, or is seen here
                process.kill()
            try:
                # Its output tells, not its exit status: that may be collected by who reaps this process's children.
                output, errors = process.communicate(timeout=CHECK_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return f"its check is not done after {CHECK_SECONDS:g} s"
        said = output.strip().splitlines()
        if said and said[-1].startswith("queuectld ") and said[-1].endswith(": ok"):
            return ""
        reasons = [line for line in errors.strip().splitlines() if not line.startswith("  hint: ")]
        return reasons[-1].removeprefix("queuectld: ").removeprefix("Error: ") if reasons else "it says nothing"

    def give_up(self) -> None:
        """Nobody wants to know any more. Called from another thread than `fault`, also before that has begun."""
        self._given_up = True
        if self._process is not None:
            self._process.kill()
