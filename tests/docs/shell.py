"""A shell in a home directory of its own, in which `queuectl` is the real command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import secrets
import selectors
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from tests.client import COLOURS
from tests.harness import CHECKOUT, PATIENCE, processes_with, wait_for

HOME, RUNTIME = "/home/ada", "/run/user/1000"
"""What the page calls the home and the runtime directory."""


DRAWING = re.compile(r"\x1b\[(\?25[lh]|1A|2K)|\r")
BAR = re.compile(r"[\d,]+ jobs ━+ \d+:\d\d:\d\d\n?")
"""Of progress, drawn over itself; it is gone in the end."""


class Shell:
    """One bash: what a command changes (directory, variables, `$?`) is there for the next one.

    Attributes:
        directory: everything is below; nothing of the user's own is seen.
    """

    def __init__(self, directory: Path, *, on_terminal: bool = False) -> None:
        """Start it; with `on_terminal`, each command has a terminal of 200 columns as its standard streams."""
        self.directory = directory
        self._streams = "</dev/null"
        self._output = -1
        self._terminal: tuple[int, ...] = ()
        self._home, self._runtime = directory / "home", directory / "run"
        programs = directory / "bin"
        for path in (self._home, self._runtime, programs):
            path.mkdir(mode=0o700)
        for name, module in (("queuectl", "queuectl_client"), ("queuectld", "queuectld")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
            (programs / name).chmod(0o755)
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("QUEUECTL", "XDG_", "DBUS_", "LC_"))
            },
            "HOME": str(self._home),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": CHECKOUT,
            "XDG_RUNTIME_DIR": str(self._runtime),
        }
        self._script = directory / "command"
        if on_terminal:
            self._terminal = pty.openpty()
            self._output, side = self._terminal
            tty.setraw(side)  # line ends stay as they are, and nothing is echoed
            fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
            self._streams = f"<{os.ttyname(side)} >{os.ttyname(side)} 2>&1"
            self.environment |= {"TERM": "xterm-256color"}
            for name in ("COLUMNS", "LINES", "NO_COLOR"):
                self.environment.pop(name, None)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=self._home, env=self.environment, start_new_session=True,
        )  # fmt: skip
        if not on_terminal:
            assert self._bash.stdout is not None
            self._output = self._bash.stdout.fileno()

    def run(self, command: str, patience: float) -> str:
        """What the command writes, standard output and standard error as they come.

        Raises:
            TimeoutError: it takes longer than `patience` seconds; the shell is of no use then.
        """
        assert self._bash.stdin is not None
        mark = f"<{secrets.token_hex(16)}>"
        self._script.write_text(f"{command}\n")
        # Read from a file, so that the command can't read the lines after it as its input; `$?` is handed on.
        say = f"echo '{mark}' {self._streams if self._terminal else ''}"
        self._bash.stdin.write(f". {self._script} {self._streams}; status=$?; {say}; (exit $status)\n".encode())
        self._bash.stdin.flush()
        output = b""
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while not output.endswith(f"{mark}\n".encode()):
                if not selector.select(deadline - time.monotonic()):
                    raise TimeoutError(f"{command!r} does not end; so far it wrote: {self._told(output)}")
                piece = os.read(self._output, 65536)
                assert piece, f"the shell ended at {command!r}"
                output += piece
        return self._told(output).removesuffix(f"{mark}\n")

    def _told(self, output: bytes) -> str:
        text = output.decode(errors="replace")
        for pattern in (COLOURS, DRAWING, BAR):
            text = pattern.sub("", text)
        return text.replace(str(self._home), HOME).replace(str(self._runtime), RUNTIME)

    def python(self, program: str, patience: float) -> str:
        """What a Python program writes."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self._home, env=self.environment, timeout=patience, check=False,
        )  # fmt: skip
        return done.stdout

    def close(self) -> None:
        """End the shell, not what it started."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # its last subshell ends before it, killed ones would not
            self._bash.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        for descriptor in self._terminal:
            os.close(descriptor)

    def left(self) -> list[str]:
        """Command lines of what still runs."""
        found = []
        for pid in self._processes():
            with contextlib.suppress(OSError):  # it has ended in this moment
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found

    def _processes(self) -> list[int]:
        return processes_with(str(self.directory))

    def clean_up(self) -> None:
        """End everything that still runs, however it is."""

        def end_all() -> bool:
            left = self._processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for(end_all, "everything that the page started to be gone")
