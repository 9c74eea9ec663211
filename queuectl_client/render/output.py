"""Standard output at the beginning and at the end of a command, and what the command exits with."""

from __future__ import annotations

import errno
import os
import sys

from queuectl_client.render.remarks import remark
from queuectl_client.render.safe import visible_json

DONE, REFUSED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit statuses; NoDaemon's own is 3. The last two are what a shell says of a program that SIGINT, SIGPIPE ended."""


def prepare() -> None:
    """Make standard output and standard error fit for whatever is written there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed: whoever started this wants to read nothing
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - as the interpreter's own
    for stream in (sys.stdout, sys.stderr):
        # A name that this locale can't write is shown as an escape; it is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write_json(text: str) -> None:
    """Write JSON text on a line of standard output, where it can't do a terminal any harm."""
    sys.stdout.write((visible_json(text) if sys.stdout.isatty() else text) + "\n")


def flushed(status: int) -> int:
    """The same, after everything is written; a reader that went away early is no error worth a word."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return status or BROKEN_PIPE
    except OSError as error:
        if error.errno == errno.EBADF:
            return status
        _discard_output()
        remark(f"can't write the answer: {error.strerror}")
        return status or REFUSED
    if status == BROKEN_PIPE:
        _discard_output()
    return status


def _discard_output() -> None:
    """Let the interpreter's own flush at exit find nobody to complain to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
