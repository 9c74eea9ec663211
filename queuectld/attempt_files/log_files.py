"""The files that attempts write to: where they are, and how one is had without paying for a new one each time.

Making a file is the dearest thing that starting a small job needs (docs/performance.md has the figures). Most small
jobs say nothing: the empty file of one is given to the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

_IN_THE_WAY = {errno.ELOOP, errno.ENXIO, errno.EEXIST, errno.EACCES, errno.EPERM}
"""What opening a log meets where an earlier job has put something else in its place: a link, a pipe, a device."""


def log_path(state_dir: Path, job: int, attempt: int) -> Path:
    """Where an attempt's output is. Made of numbers only; a thousand jobs share a directory.

    An attempt that has ended without output may have no file.
    """
    return Path(_log_path(str(state_dir), job, attempt))


def _log_path(state_dir: str, job: int, attempt: int) -> str:
    return f"{state_dir}/logs/{job // 1000}/{job}.{attempt}.log"


class LogFiles:
    """Opens the logs of a worker's attempts, one after the other."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = str(state_dir)
        self._last: str | None = None
        # Somebody opens a file at the moment in which it is leased (below): SIGIO would end this process. Not SIG_IGN,
        # which jobs would inherit.
        signal.signal(signal.SIGIO, lambda _number, _frame: None)

    def open(self, job: int, attempt: int) -> int:
        """An empty log of that name, to append to; its descriptor is the caller's.

        Called once the attempt before is over, and what became of it is committed.

        Raises:
            OSError: it can't be made.
        """
        path = _log_path(self._state_dir, job, attempt)
        last, self._last = self._last, path
        descriptor = None
        if last is not None:
            with contextlib.suppress(OSError):  # it was removed, or the directory is a new one: a new file, then
                descriptor = _taken_over(last, path)
        return _made(path) if descriptor is None else descriptor


def _taken_over(last: str, path: str) -> int | None:
    """The file of the attempt before under its new name; None where it holds output, or may still be written to."""
    descriptor = os.open(last, _FLAGS | os.O_NONBLOCK)  # a job may have put a pipe there, which nobody reads
    try:
        status = os.fstat(descriptor)
        if status.st_size == 0 and status.st_nlink == 1 and _is_ours_alone(descriptor):
            os.set_blocking(descriptor, True)
            os.rename(last, path)
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_ours_alone(descriptor: int) -> bool:
    """Whether nobody else has it open: only then the kernel gives a write lease (fcntl(2), F_SETLEASE).

    Otherwise a process that got hold of the job's output and was no part of its tree (a service that it asked to write
    there) would write into the log of another job.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False  # or a file system that has no leases
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _made(path: str) -> int:
    try:
        return _emptied(path)
    except FileNotFoundError:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        os.unlink(path)
    return _emptied(path)


def _emptied(path: str) -> int:
    """
    Raises:
        OSError: it can't be made, or there is something at `path` that is no regular file.
    """
    # Emptied: after a backup was put back, a log of what had this number before may be there. Not blocking: in its
    # place may be a pipe that nobody reads.
    descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    os.set_blocking(descriptor, True)
    return descriptor
