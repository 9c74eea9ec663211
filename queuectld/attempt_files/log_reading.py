"""Logs of attempts: reading a piece, waiting for more, removing them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from queuectld.attempt_files.log_files import log_path

log = logging.getLogger("queuectld.logs")

PIECE = 256 * 1024
"""Bytes of one answer at most."""

_TAIL_BLOCK = 64 * 1024
"""Bytes of a log that are searched for lines at once."""

_TAIL_LOOKS = 4096
"""How often at most: 256 MiB are searched. A job can make its log of any size in no time."""


class HasAttempts(Protocol):
    """A job; its attempts 1 to `last_attempt` may each have a log."""

    @property
    def number(self) -> int: ...

    @property
    def last_attempt(self) -> int: ...


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

    A log that reached its limit has a hole where older output was, and a job can make one of any size. Holes are passed
    over: reading begins behind one, and ends before the next.
    """
    nothing = Piece(offset, b"", at_end=True, dropped=False)
    descriptor = _open(path)
    if descriptor is None:
        return nothing
    try:
        first = _data_from(descriptor, 0)
        begin = _data_from(descriptor, offset)
        # Nothing is asked for beyond the end: the kernel refuses a range that passes the largest offset there is.
        there = min(size, _hole_from(descriptor, begin) - begin)
        data = os.pread(descriptor, there, begin) if there > 0 else b""
        at_end = begin + len(data) >= os.fstat(descriptor).st_size
        if not _still_has_name(descriptor, path):
            return nothing
        return Piece(begin, data, at_end=at_end, dropped=begin > offset or begin == first > 0)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """A descriptor; None where there is no log, but possibly something else that a job has put in its place.

    Nothing but a regular file is opened: already to open a pipe, a terminal or another device can block or do harm.
    None too for an empty log that a worker is about to give to its next attempt: it has a lease on it at that moment.

    Raises:
        OSError: this process has no descriptor left.
    """
    found: int | None = None
    try:
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None
    finally:
        if found is not None:
            os.close(found)


def _still_has_name(descriptor: int, path: Path) -> bool:
    """Looked at after reading: an empty log goes to the worker's next attempt by a rename, which writes only then."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _data_from(descriptor: int, offset: int) -> int:
    """Where the first byte at or behind `offset` is that is in no hole; the end of the file where there is none."""
    end = os.fstat(descriptor).st_size  # before the look: what is written meanwhile comes behind it
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return max(offset, end)
        raise


def _hole_from(descriptor: int, offset: int) -> int:
    """Where the next hole begins, at the end of the file at the latest."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return offset
        raise


def offset_of_tail(path: Path, lines: int) -> int:
    """Where the last `lines` lines begin, or where the newest part of the log does that is searched for them."""
    descriptor = _open(path)
    if descriptor is None:
        return 0
    try:
        start, end = _data_from(descriptor, 0), os.fstat(descriptor).st_size
        if not _still_has_name(descriptor, path):
            return 0
        if lines == 0:
            return end
        # The newline that ends the last line does not begin another one.
        wanted = lines + (end > start and os.pread(descriptor, 1, end - 1) == b"\n")
        position = end
        for _ in range(_TAIL_LOOKS):
            if position <= start:
                return start
            begin = max(start, position - _TAIL_BLOCK)
            if _data_from(descriptor, begin) >= position:
                position = _hole_before(descriptor, start, begin)
                continue
            block = os.pread(descriptor, position - begin, begin)
            found = block.count(b"\n")
            if found >= wanted:
                at = len(block)
                for _ in range(wanted):
                    at = block.rindex(b"\n", 0, at)
                return begin + at + 1
            wanted -= found
            position = begin
        return position
    finally:
        os.close(descriptor)


def _hole_before(descriptor: int, start: int, end: int) -> int:
    """About where the hole begins that `end` is in: less than a block behind it. There is data at `start`."""
    data, hole = start, end
    while hole - data > _TAIL_BLOCK:
        middle = (data + hole) // 2
        if _data_from(descriptor, middle) < end:
            data = middle
        else:
            hole = middle
    return hole


def remove_logs(state_dir: Path, deleted: Sequence[HasAttempts]) -> None:
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
