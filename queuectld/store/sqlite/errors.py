"""SQLite's errors, told as the store's own: none of sqlite3's leaves this package."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from queuectld.store.base import StorageBusy, StorageError, StorageFailed, StorageFull

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where a file can't grow, though nothing is broken."""

_MEANINGS = {
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
    sqlite3.SQLITE_READONLY: "the database can't be written",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
    sqlite3.SQLITE_PERM: "the database can't be opened",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code (SQLITE_IOERR for all its kinds); None if the error is the driver's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(error: sqlite3.Error, path: Path) -> StorageError:
    """The store's error for one of SQLite's, which came of work on the file at `path`.

    Of those that a commit can raise, only a write that found no room promises that nothing was changed: a commit whose
    last frame was not written whole is none. A failed fsync, or a shared-memory file that could not grow after the
    frames were written, is SQLITE_IOERR of another kind, and leaves it open.
    """
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"no room for the database ({name}): free some disk space")
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE and (why := _why_no_room(path)):
        return StorageFull(f"no room for the database ({why}): free some disk space, or raise the limit")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageBusy(f"another program keeps the database locked ({name})")
    meaning = (
        _MEANINGS.get(code, "the database gave an unexpected error") if code is not None else "misuse of the database"
    )
    return StorageFailed(f"{meaning} ({name}: {error})")


_PROBE_BYTES = 64 * 1024
"""More than the one write that failed."""


def _why_no_room(path: Path) -> str:
    """Why a file beside `path` can't be as long as the database and its log are, and a little longer; "" if it can.

    SQLite knows ENOSPC as such. A quota (EDQUOT) and a limit of a file's size (EFBIG) are to it what EIO is, and its
    driver does not tell the error's number. So the same is tried again: a disk that fails does not say these.
    """
    try:
        sizes = [file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists()]
        descriptor, probe = tempfile.mkstemp(prefix=".probe-", dir=path.parent)
        try:
            Path(probe).unlink()
            os.pwrite(descriptor, bytes(_PROBE_BYTES), max(sizes, default=0))
        finally:
            os.close(descriptor)
    except OSError as error:
        return os.strerror(error.errno) if error.errno in NO_ROOM else ""
    return ""
