"""What the processes of an attempt carry, by which they are found wherever they are: a variable, and open lock files.

The value of the variable is the lease's token and the queue's mark. The locks are flock(2) on files: whoever inherited
the descriptor holds the lock too, so a lock that is free proves that nobody who inherited it is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from queuectld.attempt_files import regular_files

MARKER = "QUEUECTL_LEASE"
"""Names the variable that carries the lease's token in the environment of every process of an attempt."""


def marker(state_dir: Path, token: str) -> str:
    """The value of MARKER: the lease's token and the queue's mark.

    A copy of a database has the same tokens, but lies in another directory, so the mark differs.
    """
    return f"{token}{queue_mark(state_dir)}"


def queue_mark(state_dir: Path) -> str:
    """The end of all markers of one queue, and of no other: it names the state directory by device and inode."""
    status = os.stat(state_dir)
    return f"@{status.st_dev:x}-{status.st_ino:x}"


class LockFile(NamedTuple):
    """What a lock's file is known by among the descriptors of a process."""

    name: str
    """The file's name without its directory. A descriptor of a file with another name is not looked at."""
    device: int
    inode: int


def take_lock(path: Path) -> int:
    """Open and lock a worker's own file. The descriptor is inheritable, so the worker's jobs hold the lock too.

    Raises:
        OSError: somebody holds it, or the directory is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock, neither the worker nor anyone who inherited it.

    A lock whose file is gone, or has something else in its place (a job may have done that), counts as free.

    Raises:
        OSError: that can't be found out now: no descriptor is left, its directory is closed, the disk failed.
    """
    descriptor = regular_files.open_regular(path, os.O_RDWR)
    if descriptor is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def carries(pid: int, marker: bytes, lock: LockFile | None) -> bool:
    """
    Raises:
        ProcessLookupError: it has gone before it could be looked at.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if marker and marker in file.read().split(b"\0"):
                return True
        return lock is not None and lock in _open_of(pid, [lock])
    except PermissionError:
        return (
            False  # another user's: a process of a job that changed its user is found as a descendant, or by its cgroup
        )
    except OSError as error:
        raise ProcessLookupError from error


def _open_of(pid: int, locks: Collection[LockFile]) -> set[LockFile]:
    """Which of these files a process has open.

    Raises:
        OSError: it can't be looked at, or has gone.
    """
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/fd/{number}"
            # stat(2) asks the file system, and one that hangs (NFS) never answers. So it is called only for a file with
            # the name of a lock. readlink(2) asks the kernel alone.
            name = os.path.basename(os.readlink(path)).removesuffix(" (deleted)")
            if any(name == lock.name for lock in locks):
                status = os.stat(path)
                found.update({LockFile(name, status.st_dev, status.st_ino)}.intersection(locks))
    return found


def carried(pid: int, locks: Collection[LockFile]) -> tuple[set[str], set[LockFile]]:
    """The values of MARKER in a process's environment, and those of `locks` that it has open, as far as is seen."""
    marks: set[str] = set()
    files: set[LockFile] = set()
    prefix = f"{MARKER}="
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        words = os.fsdecode(file.read()).split("\0")
        marks.update(word.removeprefix(prefix) for word in words if word.startswith(prefix) and word != prefix)
    with contextlib.suppress(OSError):
        files = _open_of(pid, locks)
    return marks, files


def lock_identity(path: Path) -> LockFile | None:
    """What the file of a lock is known by. None where it is gone, or something else is there: a job can do that."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return LockFile(path.name, status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def carriers(mark: str, lock: LockFile) -> list[int]:
    """All processes but this one that carry an attempt's marker or have the file of its lock open, as far as is seen.

    Args:
        mark: the value of MARKER.
        lock: the file.
    """
    marker = f"{MARKER}={mark}".encode()
    found = []
    for pid in newest_first():
        with contextlib.suppress(ProcessLookupError):
            if pid != os.getpid() and pid > 1 and carries(pid, marker, lock):
                found.append(pid)
    return found


def newest_first() -> list[int]:
    """The PIDs of all processes, the newest first, because new processes tend to end first.

    The kernel gives out PIDs in rising order, and begins again after the highest.
    """
    with open("/proc/loadavg", "rb") as file:
        last = int(file.read().split()[-1])
    return sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), key=lambda pid: (last - pid) % 2**22)
