"""SQLite's errors, told as the store's own: none of sqlite3's leaves this package."""

from __future__ import annotations

import sqlite3

from queuectld.store.base import StorageError, StorageFailed, StorageFull

_MEANINGS = {
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
    sqlite3.SQLITE_READONLY: "the database can't be written",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
    sqlite3.SQLITE_PERM: "the database can't be opened",
    sqlite3.SQLITE_BUSY: "another program keeps the database locked",
    sqlite3.SQLITE_LOCKED: "another program keeps the database locked",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code (SQLITE_IOERR for all its kinds); None if the error is the driver's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(error: sqlite3.Error) -> StorageError:
    """The store's error for one of SQLite's.

    Only SQLITE_FULL promises that nothing was changed: SQLite says it when a write found no room, and a commit whose
    last frame was not written whole is none. A failed fsync, or a shared-memory file that could not grow after the
    frames were written, is SQLITE_IOERR, and leaves it open.
    """
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"no room for the database ({name}): free some disk space")
    meaning = (
        _MEANINGS.get(code, "the database gave an unexpected error") if code is not None else "misuse of the database"
    )
    return StorageFailed(f"{meaning} ({name}: {error})")
