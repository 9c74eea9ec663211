"""A person's terminal: a login shell in a pseudo-terminal, into which lines are typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PATIENCE = 600.0
"""Seconds after which a command that was typed counts as hanging."""

_SIZE = struct.pack("HHHH", 50, 200, 0, 0)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][0B]?|\x07|\r")
_PROMPT = re.compile(r"(?:^|\n)<(\d+)> $")


class Terminal:
    """A shell that a person sits at.

    Args:
        argv: what to run in the terminal; it ends in an interactive bash.
        log: everything that the terminal shows, as it comes.
    """

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._log = log
        self._shown = ""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):  # as a login has them
                signal.signal(number, signal.SIG_DFL)
            os.execvp(argv[0], list(argv))
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, _SIZE)
        self.until(r"[$#%>] $")
        self.greeting = self._shown  # what a login shows before its first prompt
        self.type("PS1='<$?> '")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def type(self, line: str, patience: float = PATIENCE) -> tuple[int, str]:
        """Type a line; the exit status of the command, and what it showed."""
        self._shown = ""
        self.send(f"{line}\r")
        found = self.until(_PROMPT.pattern, patience)
        shown = self._shown[: found.start()]
        return int(found[1]), "".join(f"{text.rstrip()}\n" for text in shown.splitlines()[1:])

    def send(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def until(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Read until what is shown, from the last line that was typed on, has `pattern` in it.

        Raises:
            AssertionError: it has not, after `patience` seconds, or when the terminal is closed.
        """
        deadline = time.monotonic() + patience
        while (found := re.search(pattern, self._shown)) is None:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            data = self._read() if ready else b""
            assert data, f"waited for {pattern!r}; the terminal shows:\n{self._shown}"
            with self._log.open("ab") as log:
                log.write(data)
            self._shown = _ESCAPES.sub("", self._shown + data.decode(errors="replace"))
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except OSError:  # EIO: the last process in the terminal has closed it
            return b""

    def close(self) -> None:
        """Log out, as when the window is closed."""
        os.close(self._descriptor)
        for number in (signal.SIGHUP, signal.SIGKILL):
            os.kill(self._pid, number)
            for _ in range(100):
                if os.waitpid(self._pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.05)
