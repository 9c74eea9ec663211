"""Room on the disk: kept for what must not fail, refused to what may wait."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from queuectl_protocol.errors import ProtocolError

FLOOR = 32 * 1024 * 1024
"""Bytes that must be free for a job to be enqueued or started."""

RESERVE = 8 * 1024 * 1024
"""Bytes of a file that is given up when the disk is full all the same, so that running jobs can be finished."""

START = 1024 * 1024
"""Bytes that a start may need."""

LOOK = 0.05
"""Seconds for which a look at the disk holds: far too short to write as much as the floor and the reserve are."""

FLOOR_VARIABLE = "QUEUECTLD_DISK_FLOOR"
"""Overrides FLOOR: the seam through which tests make a disk full."""


class DiskSpace:
    """The file system of the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._reserve = state_dir / "reserve"
        self._floor = int(os.environ.get(FLOOR_VARIABLE, FLOOR))
        self._is_missing = False
        self._was_low = False
        self._looked_at = float("-inf")

    def is_low(self) -> bool:
        """Whether less than the floor is free for this user; if not, a reserve that is missing is made."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK:
            self._was_low, self._looked_at = self._look(), now
        return self._was_low

    def _look(self) -> bool:
        free = self._free()
        if self._is_missing and free >= self._floor + RESERVE:
            self._is_missing = False
            self.keep_reserve()
        return free < self._floor

    def _free(self) -> float:
        try:
            found = os.statvfs(self._state_dir)
        except OSError:
            return float("inf")  # then a commit will tell
        return found.f_bavail * found.f_frsize

    def check(self) -> None:
        """Before anything is taken that may wait.

        Raises:
            ProtocolError: `storage_full`.
        """
        if self.is_low():
            raise ProtocolError(
                "storage_full",
                f"less than {self._floor // 1024 // 1024} MiB are free where {self._state_dir} is",
                "nothing was enqueued; free some space and try again",
            )

    def keep_reserve(self) -> None:
        """Make the reserve, if it is not there and there is room for it."""
        if self._reserve.exists():
            return
        if self._free() < self._floor:
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
        if self._free() < START:
            self.give_up_reserve()
