"""A person's terminal: a login shell in a pseudo-terminal, into which lines are typed."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PATIENCE = 600.0
"""Seconds after which a command that was typed counts as hanging."""

_SIZE = struct.pack("HHHH", 50, 200, 0, 0)
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][0B]?|\x07|\r"  # ECMA-48, 5.4 and 5.6
)
_QUESTION, _ANSWER = re.compile(rb"\x1b\[0?c"), "\x1b[?62c"
"""What kind of terminal this is: fish asks, and waits for the answer."""
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
        self._descriptor, end = os.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, _SIZE)
        # As a login begins: a session of its own, in control of the terminal, and no signal ignored.
        command = ["env", "--default-signal", "setsid", "--ctty", "--wait", *argv]
        self._process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
        os.close(end)
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

    def press(self, keys: str, pattern: str, patience: float = 60.0) -> None:
        """Press keys, and wait until what is shown from then on has `pattern` in it."""
        self._shown = ""
        self.send(keys)
        self.until(pattern, patience)

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
            if _QUESTION.search(data):
                self.send(_ANSWER)
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
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
