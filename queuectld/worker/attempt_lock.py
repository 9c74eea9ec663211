"""The lock of an attempt: its processes inherit it, its worker lets go of it, and takes it again once they are gone.

A process can leave its worker's tree, as by entering a PID namespace whose init gets its orphans: then the worker has
no child left, and yet not all are gone. Whoever is left holds the lock, so the worker gets it only when nobody is.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from queuectld.process_tree.marks import LockFile

_NONE = -1


class AttemptLock:
    """One lock for the attempts of a worker, one after the other.

    A lock of flock(2) belongs to what one open(2) has made, and to all who inherited that. The worker opens the file
    once more for each attempt, since it can't let go of a lock that it shares without taking it from the others too.

    Attributes:
        identity: by what a process is found that has its file open.
    """

    def __init__(self, path: Path) -> None:
        """Make it, and take it. The file has no name any more afterwards: nobody can remove or replace it.

        Raises:
            OSError: the file can't be made.
        """
        self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        path.unlink(missing_ok=True)  # a daemon that starts just now may have swept it up
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(self._held, True)
        self._next = _NONE
        status = os.fstat(self._held)
        self.identity = LockFile(path.name, status.st_dev, status.st_ino)

    def prepare(self) -> None:
        """Get ready for what is started next, which inherits the lock. Called while the worker has it.

        Raises:
            OSError: no descriptor is left.
        """
        if self._next == _NONE:
            self._next = os.open(f"/proc/self/fd/{self._held}", os.O_RDWR | os.O_CLOEXEC)

    def let_go(self) -> None:
        """From now on only those have it who were started since `prepare`."""
        os.close(self._held)
        self._held = _NONE

    def is_free(self) -> bool:
        """Whether nobody else has it; then the worker has it again."""
        if self._held == _NONE:
            try:
                fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._held, self._next = self._next, _NONE
            os.set_inheritable(self._held, True)
        return True
