"""What files are called, and which file one is."""

from __future__ import annotations

import os
from pathlib import Path

from queuectld.host.start_error import StartError


def check_name(path: Path, what: str, hint: str) -> None:
    """Clients are told where everything is, and JSON can't tell a name that is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise StartError(f"the name of {what} is not UTF-8: {str(path)!r}", hint) from None


NO_FILE = (0, 0)
"""The identity of no file."""


def file_identity(path: Path) -> tuple[int, int] | None:
    try:
        return identity_of(path.lstat())
    except OSError:
        return None


def identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
