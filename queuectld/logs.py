"""Logs of attempts: reading a piece, waiting for more, removing them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from queuectld.store.base import Deleted
from queuectld.worker.log_files import log_path

log = logging.getLogger("queuectld.logs")

PIECE = 256 * 1024
"""Bytes of one answer at most."""

_IN_MODIFY = 0x2
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a log.

    Attributes:
        offset: where it begins; later than asked for if what was there is not there any more.
        data: its bytes.
        at_end: whether the file ends there.
        dropped: whether what was right before it is not there any more. Said of one piece, not of all that follow.
    """

    offset: int
    data: bytes
    at_end: bool
    dropped: bool


def read_piece(path: Path, offset: int, size: int = PIECE) -> Piece:
    """At most `size` bytes from `offset` on; nothing where the file is not there (yet, or any more).

    A log that reached its limit has a hole where older output was: reading begins behind it.
    """
    nothing = Piece(offset, b"", at_end=True, dropped=False)
    descriptor = _open(path)
    if descriptor is None:
        return nothing
    try:
        start = _first_data(descriptor)
        begin = max(offset, start)
        # Not asked for at all beyond the end: the kernel refuses a range that passes the largest offset there is.
        data = os.pread(descriptor, size, begin) if begin < os.fstat(descriptor).st_size else b""
        at_end = begin + len(data) >= os.fstat(descriptor).st_size
        if not _still_has_name(descriptor, path):
            return nothing
        return Piece(begin, data, at_end=at_end, dropped=begin == start > 0)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """A descriptor; None where there is no log, but possibly a link or a pipe that a job has put in its place.

    None too for an empty one that a worker is about to give to its next attempt: it has a lease on it at that moment.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EWOULDBLOCK):
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _still_has_name(descriptor: int, path: Path) -> bool:
    """Looked at after reading: an empty log goes to the worker's next attempt by a rename, which writes only then."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _first_data(descriptor: int) -> int:
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return 0  # empty
        raise


def offset_of_tail(path: Path, lines: int) -> int:
    """Where the last `lines` lines begin."""
    descriptor = _open(path)
    if descriptor is None:
        return 0
    try:
        start, end = _first_data(descriptor), os.fstat(descriptor).st_size
        if not _still_has_name(descriptor, path):
            return 0
        if lines == 0:
            return end
        # The newline that ends the last line does not begin another one.
        wanted = lines + (end > start and os.pread(descriptor, 1, end - 1) == b"\n")
        position = end
        while position > start:
            begin = max(start, position - 65536)
            block = os.pread(descriptor, position - begin, begin)
            found = block.count(b"\n")
            if found >= wanted:
                at = len(block)
                for _ in range(wanted):
                    at = block.rindex(b"\n", 0, at)
                return begin + at + 1
            wanted -= found
            position = begin
        return start
    finally:
        os.close(descriptor)


def remove_logs(state_dir: Path, deleted: Sequence[Deleted]) -> None:
    """Remove the logs of deleted jobs, and directories that are empty then; what can't be removed stays."""
    directories = set()
    for job in deleted:
        for attempt in range(1, job.last_attempt + 1):
            path = log_path(state_dir, job.number, attempt)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("a log can't be removed: %s", error)
            directories.add(path.parent)
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def log_directories(state_dir: Path) -> list[Path]:
    """Those that hold logs, a thousand jobs each."""
    return [path for path in (state_dir / "logs").iterdir() if path.is_dir()]


def logs_in(directory: Path) -> dict[int, int]:
    """Job -> its highest attempt of which a log is there."""
    found: dict[int, int] = {}
    for path in directory.iterdir():
        job, _, rest = path.name.partition(".")
        attempt, _, kind = rest.partition(".")
        if kind == "log" and job.isdecimal() and attempt.isdecimal():
            found[int(job)] = max(found.get(int(job), 0), int(attempt))
    return found


class FileWatch:
    """Tells when something was written to a file; inotify(7), so that nothing polls.

    Raises:
        OSError: the file is not there, or the user has no more inotify instances.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY) < 0:
            number = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(number, os.strerror(number), str(path))
        self._event: asyncio.Event | None = None

    def start(self, event: asyncio.Event) -> None:
        """Set `event` at each write from now on."""
        self._event = event
        asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 65536)
        if self._event is not None:
            self._event.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
