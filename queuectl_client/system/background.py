"""Starting a daemon in the background, and seeing whether it came up."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import queuectl_protocol
from queuectl_client.client import Client
from queuectl_client.errors import ClientError, NoDaemon
from queuectl_client.render.remarks import remark
from queuectl_client.wire.state_files import address_of, running_daemon, wait_for_end
from queuectl_protocol import paths
from queuectl_protocol.messages import ServerInfo

LOOK_SECONDS = 0.05
READY_SECONDS = 120.0
"""A daemon that recovers a large queue after a crash takes its time, but not that long."""
LOG_TAIL = 4096
"""Bytes of the log among which the reason for an early end is looked for."""
HINT = "hint: "
STOP_HINT = "it waits for running jobs; `queuectl daemon stop --now` ends them, and they go back to pending"
ANOTHER = "another "
"""What the daemon's refusal begins with where another one has the state directory or the socket."""
WINNER_SECONDS = 30.0
"""How long such another one is waited for: it may listen in a moment, or never, at another socket."""


def start(socket: Path | None, state_dir: Path | None, options: Sequence[str]) -> tuple[ServerInfo, bool]:
    """Start a daemon unless one answers already, and wait until it is ready.

    Args:
        socket: where it shall listen; None: where it would by itself.
        state_dir: where it keeps its state; None: where it would by itself.
        options: handed on to it.

    One that is stopping is waited for: another is started when its process has ended.

    Returns:
        What it says of itself, and whether it was started just now.

    Raises:
        ClientError: it did not come up; the message is the last of its log.
    """
    listening = _absolute(socket or Path(paths.daemon_socket(os.environ)))
    state = _absolute(state_dir or Path(paths.state_dir(os.environ)))
    while True:
        running = _running(listening, state, state_dir)
        if running is None:
            running, fresh = _start(listening, state, state_dir, options)
        else:
            fresh = False
        if not running.stopping:
            return running, fresh
        _wait_until_gone(running)


def _start(listening: Path, state: Path, state_dir: Path | None, options: Sequence[str]) -> tuple[ServerInfo, bool]:
    """Start a daemon where none answers; see `start`. The one that answers may be another, even one that stops."""
    log = _log_file(state)
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [*_program(), "--socket", str(listening), "--state-dir", str(state), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    deadline = time.monotonic() + READY_SECONDS
    give_up_at = time.monotonic() + WINNER_SECONDS
    while time.monotonic() < deadline:
        info = _ask(listening)
        if info is not None and info.pid == process.pid:
            return info, True
        if process.poll() is not None:
            # Somebody else may have started one in the same moment, and won; it has the lock before it listens, and
            # writes to the same log: what that says is read before it is asked, or it may say just now "ready".
            failure = _failure(log, begin, process.returncode)
            info = _running(listening, state, state_dir)
            if info is not None:
                return info, False
            if ANOTHER not in str(failure) or time.monotonic() > give_up_at:
                raise failure
        else:
            give_up_at = time.monotonic() + WINNER_SECONDS
        time.sleep(LOOK_SECONDS)
    raise ClientError(f"the daemon (PID {process.pid}) is not ready after {READY_SECONDS:g} s", f"its log is {log}")


def _wait_until_gone(stopping: ServerInfo) -> None:
    """Return when the daemon's process has ended, or a moment later where that can't be seen."""
    remark(f"the daemon (PID {stopping.pid}) is stopping; another one is started when it is gone", STOP_HINT)
    found = running_daemon(stopping.state_dir)
    if found is None:  # gone already; or it runs as another user, or where its PID means nothing here
        time.sleep(LOOK_SECONDS)
        return
    _, process = found
    try:
        wait_for_end(process)
    finally:
        os.close(process)


def _running(listening: Path, state: Path, state_dir: Path | None) -> ServerInfo | None:
    """The daemon of this state directory, wherever it listens; or, where none was named, the one at the socket."""
    found = _ask(listening)
    if found is not None and (state_dir is None or Path(found.state_dir).resolve() == state.resolve()):
        return found
    elsewhere = address_of(str(state))
    running = _ask(Path(elsewhere)) if elsewhere is not None else None
    if running is not None and Path(running.state_dir).resolve() == state.resolve():
        return running
    if found is not None:
        raise ClientError(
            f"a daemon with another state directory ({found.state_dir}) listens on {listening}",
            "give this one a socket of its own: `queuectl --socket PATH daemon start ...`",
        )
    return None


def _ask(listening: Path) -> ServerInfo | None:
    """Who answers at the socket; None if nobody does."""
    try:
        with Client(listening, patience=0) as client:
            return client.info()
    except NoDaemon:
        return None


def _log_file(state: Path) -> Path:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = state.stat().st_uid
        if owner != os.geteuid():
            # The daemon says so too, but then root would have left a log in somebody's directory.
            raise ClientError(
                f"the state directory {state} belongs to another user (UID {owner})",
                "start the daemon as that user, or give --state-dir another directory",
            )
        log = state / "daemon.log"
        os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ClientError(f"can't write to the state directory {state}: {error.strerror}") from None
    return log


def _absolute(path: Path) -> Path:
    """The daemon runs in another directory."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would call a symbolic link by another name


def _program() -> list[str]:
    # -P: what lies in the current directory is not imported.
    return [sys.executable, "-P", "-m", "queuectld"]


def _environment() -> dict[str, str]:
    """This one, with the way to the daemon's code where it is not installed (a checkout)."""
    root = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    if root not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        protocol = str(Path(queuectl_protocol.__file__).resolve().parent.parent)
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([root, protocol, *([before] if before else [])])
    return environment


def _failure(log: Path, begin: int, status: int) -> ClientError:
    """Why the daemon ended, as it said itself: its last sentence, and the hint in the line after that."""
    with log.open("rb") as written:
        written.seek(max(begin, log.stat().st_size - LOG_TAIL))
        lines = [line.strip() for line in written.read().decode(errors="replace").splitlines() if line.strip()]
    hints = [f"its log is {log}"]
    if len(lines) > 1 and lines[-1].startswith(HINT):
        hints.insert(0, lines.pop().removeprefix(HINT))
    said = lines[-1].removeprefix("queuectld: ") if lines else "it said nothing"
    return ClientError(f"the daemon did not start (exit {status}): {said}", "; ".join(hints))
