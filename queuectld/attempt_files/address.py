"""Where the daemon of a state directory listens: a file in that directory, which the daemon writes and others read."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from queuectl_protocol.paths import ADDRESS_FILE, parse_address
from queuectld.attempt_files import regular_files


def write(state_dir: Path, socket: Path) -> None:
    """Put it on disk, unless it is there already. Whoever reads meanwhile finds the old address or the new one.

    Raises:
        OSError: the disk is full or failed.
    """
    if read(state_dir) == socket:
        return
    path = state_dir / ADDRESS_FILE
    temporary = path.with_suffix(".tmp")
    regular_files.remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{socket}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(state_dir: Path) -> Path | None:
    """What the file says; None where there is none, or something else is in its place (a job can write there)."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(state_dir / ADDRESS_FILE, flags)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        address = parse_address(os.read(descriptor, 8192))
        return None if address is None else Path(address)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def remove(state_dir: Path) -> None:
    with contextlib.suppress(OSError):
        (state_dir / ADDRESS_FILE).unlink()
