"""Files in the state directory that a job can reach: whatever is in their place must stop, block or fill nobody.

Jobs run as the user who owns the directory. In the place of a file may be a link, a FIFO, a directory, a device, or
any number of bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
"""What open(2) says where no regular file is: nothing, a link, a directory, a socket, a device that is not there."""


def open_regular(path: Path, flags: int) -> int | None:
    """Open a file that is there already; None if none is there, or anything but a regular file of this user's.

    Args:
        path: its name; a link in its place is not followed.
        flags: os.O_RDONLY or os.O_RDWR.

    Raises:
        OSError: it can't be opened for another reason: no descriptor is left, its directory is closed, the disk failed.
    """
    try:
        descriptor = _open(path, flags)
    except PermissionError:
        if not _made_accessible(path):
            return None
        descriptor = _open(path, flags)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path, flags: int) -> int:
    # O_NONBLOCK: the other end of a FIFO is not waited for.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _made_accessible(path: Path) -> bool:
    """Give its owner the permission back that a job has taken (chmod 0); whether the file is this user's at all."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours:
            Path(f"/proc/self/fd/{descriptor}").chmod(0o600)  # not followed anywhere else
    finally:
        os.close(descriptor)
    return is_ours


def content(path: Path, limit: int) -> bytes | None:
    """All that a regular file holds; None if there is none, or it holds more than `limit` bytes.

    Raises:
        OSError: it can't be read.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    if descriptor is None:
        return None
    try:
        found = b""
        # One byte more than is allowed tells what is too long; a file may grow while it is read.
        while len(found) <= limit and (piece := os.read(descriptor, limit + 1 - len(found))):
            found += piece
    finally:
        os.close(descriptor)
    return found if len(found) <= limit else None


def remove(path: Path) -> None:
    """Remove a file, or what is in its place, if that can be done at once; no error comes of it if it can't."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()
