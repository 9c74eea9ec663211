"""The real `queuectl` where `Daemon.queuectl` is not enough: on a terminal, in the background, in a shell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from tests.harness import CHECKOUT, CLIENT, PATIENCE, Daemon, is_running, lines_of, wait_for


def argv(daemon: Daemon, *arguments: str) -> list[str]:
    """The command for this daemon, as a process is given it."""
    return [*CLIENT, "--socket", str(daemon.socket), *arguments]


def shell_environment(directory: Path, daemon: Daemon | None = None) -> dict[str, str]:
    """An environment in which `queuectl` is the real command, and finds this daemon.

    Args:
        directory: `bin/` is made below; nothing of the user's own state is seen.
        daemon: None: whatever else the environment will say.
    """
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "queuectl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m queuectl_client "$@"\n')
    program.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("QUEUECTL", "XDG_"))},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": CHECKOUT,
        "QUEUECTL_TEST": str(directory),
    }
    if daemon is not None:
        environment["QUEUECTL_SOCKET"] = str(daemon.socket)
    return environment


@contextlib.contextmanager
def background(daemon: Daemon, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs; ended at the latest with the block."""
    process = subprocess.Popen(
        argv(daemon, *arguments),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": daemon.environment,
            **options,
        },
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def output_of(stream: IO[str] | None) -> IO[str]:
    """A pipe of `background`, for the type checker."""
    assert stream is not None
    return stream


def wait_connected(process: subprocess.Popen[str]) -> None:
    """Wait until the command has a socket open; before that, a signal would meet a half-started interpreter."""

    def is_connected() -> bool:
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in this moment
                if str(entry.readlink()).startswith("socket:"):
                    return True
        return False

    wait_for(is_connected, "the command to be connected")


class Tree:
    """A job that is a shell with a child that left its session: whoever ends the job has to find both."""

    def __init__(self, directory: Path) -> None:
        self._pids = directory / "tree.pids"
        self.command = f"setsid sleep 600 & echo $! $$ >{self._pids}; echo begun; wait"

    def pids(self) -> list[int]:
        """Waits until it has begun."""
        [line] = wait_for(lambda: lines_of(self._pids), "the tree to begin")
        return [int(word) for word in line.split()]

    def is_gone(self) -> bool:
        return not any(is_running(pid) for pid in self.pids())


# --- terminals ------------------------------------------------------------------------------------------------------

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Sequences that change how text looks, and do nothing else."""
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])[;m]")
"""One that chooses a colour; bold and dim are none."""


class Terminal:
    """A program on a pseudo-terminal of its own, which controls it: ^C is a signal there.

    Attributes:
        output: all that was written so far, line ends as a terminal gets them (CR LF).
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        rows: int = 24,
        stdout: int | IO[bytes] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            environment: of the program; COLUMNS and NO_COLOR of the person who runs the tests are left out.
            columns: width, as the terminal tells it.
            rows: height.
            stdout: a file for its standard output; None: the terminal.
        """
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        base = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        base |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        # A leader of a session that opens a terminal is controlled by it; no fork() of this process is needed.
        take = 'exec 0<>"$0" 2>&0; ' + ("exec 1>&0; " if stdout is None else "") + 'exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", take, os.ttyname(side), *command],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL,
            env={**base, **environment}, start_new_session=True,
        )  # fmt: skip
        self._ended = os.pidfd_open(self._process.pid)
        self._side: int | None = side  # held until the program has ended: without any, there is nothing to read from
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._close_side()
        os.close(self._main)
        os.close(self._ended)

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._main, keys.encode())

    def read_until(self, seen: Callable[[str], object], what: str) -> str:
        """Read until `seen`, given all output so far, is true; all output."""
        deadline = time.monotonic() + PATIENCE
        while not seen(self.output):
            if not self._read(deadline):
                raise AssertionError(f"{what} was never on the terminal: {self.output!r}")
        return self.output

    def asked(self, question: str) -> str:
        """Read until a question is there and its answer waited for; all output.

        A key that is a signal would be missed by an interpreter that is just about to read, until the next key.
        """
        self.read_until(lambda output: output.rstrip().endswith(question), question)
        stat = Path(f"/proc/{self._process.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "the answer to be waited for")
        return self.output

    def finish(self) -> int:
        """Read until it has ended; its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        """Read once; False at the end, or when the time is up."""
        waiting = [self._main, self._ended] if self._side is not None else [self._main]
        ready = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            return False
        if ready == [self._ended]:
            self._close_side()  # what the program wrote may still be on its way; after it comes the end
            return self._read(deadline)
        try:
            data = os.read(self._main, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.output += data.decode()
        return True

    def _close_side(self) -> None:
        if self._side is not None:
            os.close(self._side)
            self._side = None


def on_terminal(daemon: Daemon, *arguments: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal; its exit status, and what is written there, with lines that end in LF."""
    with Terminal(argv(daemon, *arguments), {**environment_of(daemon), **environment}, columns=columns) as terminal:
        status = terminal.finish()
        return status, terminal.output.replace("\r\n", "\n")


def environment_of(daemon: Daemon) -> dict[str, str]:
    """The daemon's environment without what would say how a terminal is."""
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "TERM", "LC_ALL", "LANG"}
    return {name: value for name, value in daemon.environment.items() if name not in unwanted}
