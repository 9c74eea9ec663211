"""Room on the disk: kept for what must not fail, refused to what may wait."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from queuectl_protocol.errors import ProtocolError

FLOOR = 32 * 1024 * 1024
"""Bytes that must be free for a job to be enqueued or started."""

FLOOR_OF_FILES = 256
"""Files that it must be possible to make for a job to be enqueued or started: each attempt has a log, and may need an
exit record. Some file systems run out of them (of inodes) with room left."""

RESERVE = 8 * 1024 * 1024
"""Bytes of a file that is given up when the disk is full all the same, so that running jobs can be finished."""

START = 1024 * 1024
"""Bytes that a start may need."""

LOOK = 0.05
"""Seconds for which a look at the disk holds: far too short to write as much as the floor and the reserve are."""

FLOOR_VARIABLE = "QUEUECTLD_DISK_FLOOR"
"""Overrides FLOOR: the seam through which tests make a disk full."""


@dataclass(frozen=True, slots=True)
class Free:
    """What is left for this user."""

    size: float
    """Bytes."""
    files: float
    """New files."""


def free_of(found: os.statvfs_result) -> Free:
    """What statvfs(3) tells. One that makes inodes as they are needed (btrfs) says that it has none at all."""
    return Free(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else math.inf)


class DiskSpace:
    """The file system of the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._reserve = state_dir / "reserve"
        self._floor = int(os.environ.get(FLOOR_VARIABLE, FLOOR))
        self._is_missing = False
        self._lacking = ""
        self._looked_at = float("-inf")

    def is_low(self) -> bool:
        """Whether less than the floor is free for this user; if not, a reserve that is missing is made."""
        return bool(self._lack())

    def _lack(self) -> str:
        """What there is too little of; "" if there is enough."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK:
            self._lacking, self._looked_at = self._look(), now
        return self._lacking

    def _look(self) -> str:
        free = self._free()
        if self._is_missing and free.size >= self._floor + RESERVE:
            self._is_missing = False
            self.keep_reserve()
        if free.size < self._floor:
            return f"less than {self._floor // 1024 // 1024} MiB are free"
        if free.files < FLOOR_OF_FILES:
            return f"fewer than {FLOOR_OF_FILES} new files (inodes) can be made"
        return ""

    def _free(self) -> Free:
        try:
            return free_of(os.statvfs(self._state_dir))
        except OSError:
            return Free(math.inf, math.inf)  # then a commit will tell

    def check(self) -> None:
        """Before anything is taken that may wait.

        Raises:
            ProtocolError: `storage_full`.
        """
        if lacking := self._lack():
            raise ProtocolError(
                "storage_full",
                f"{lacking} where {self._state_dir} is",
                "nothing was enqueued; free some space and try again",
            )

    def keep_reserve(self) -> None:
        """Make the reserve, if it is not there and there is room for it."""
        if self._reserve.exists():
            return
        if self._free().size < self._floor:
            self._is_missing = True
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
            except OSError:
                self._reserve.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)

    def give_up_reserve(self) -> bool:
        """The disk is full: let those have the room who finish what runs. Whether there was any to give."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self._is_missing = True
        return True

    def make_startable(self) -> None:
        """Make room for what a start itself writes (locks, the index of the database's log), where there is none."""
        if self._free().size < START:
            self.give_up_reserve()
