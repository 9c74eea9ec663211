"""Copies of the database that are consistent, whole, and on disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from queuectld import failpoints
from queuectld.store.base import GivenUp, StorageError, StorageFull
from queuectld.store.sqlite.connection import open_raw, open_reader
from queuectld.store.sqlite.errors import NO_ROOM, translate

_PAGES_A_STEP = 4096
"""16 MiB: some milliseconds, between which it can be given up."""


def write_backup(source: Path, target: Path, give_up: Callable[[], bool] = lambda: False) -> None:
    """Copy what is committed to `target`, which is replaced if it is there. The database may be written meanwhile.

    The copy is made over a connection of its own, which holds one snapshot, so no busy writer makes it begin again.

    Raises:
        GivenUp: `give_up`, asked again and again meanwhile, said so. `target` is as it was.
        StorageFull: no room for the copy.
        StorageError: the copy can't be written; the message says why. `target` is as it was.
    """
    if target.absolute().parent.resolve() / target.name in _own_files(source):
        raise StorageError(f"{target} is the database itself: name another file for the copy")
    if target.with_name(target.name + "-wal").exists():
        # It would be taken for the copy's own write-ahead log, and ruin it.
        raise StorageError(
            f"{target} is a database in use ({target.name}-wal is there): name another file for the copy"
        )
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.unlink(missing_ok=True)
        create_private(temporary)
        _copy(source, temporary, give_up)
        fsync(temporary)
        failpoints.hit("backup.copied")
        temporary.rename(target)
        fsync(target.absolute().parent)
    except sqlite3.Error as error:
        raise translate(error, temporary) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull(f"no room for the copy {target}: free some disk space") from error
        raise StorageError(f"can't write the copy {target}: {error.strerror}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read, whatever the umask. SQLite gives its side files the same mode.

    Raises:
        FileExistsError: it is there already.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def fsync(path: Path) -> None:
    """Put a file, or a directory's entries, on disk. Never a database that is open here: its locks would go."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path, give_up: Callable[[], bool]) -> None:
    def look(_status: int, _remaining: int, _total: int) -> None:
        if give_up():
            raise GivenUp(f"the copy {target} was given up")

    reader = open_reader(source)
    try:
        copy = open_raw(target, "rw")
        try:
            # The file is thrown away if anything goes wrong, and put on disk at the end: no journal until then.
            copy.execute("PRAGMA journal_mode = OFF").fetchall()
            copy.execute("PRAGMA synchronous = OFF").fetchall()
            reader.execute("BEGIN")  # or the snapshot would end with each of the steps
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            reader.backup(copy, pages=_PAGES_A_STEP, progress=look)
        finally:
            copy.close()
    finally:
        reader.close()


def _own_files(source: Path) -> set[Path]:
    real = source.resolve()
    return {real, real.with_name(real.name + "-wal"), real.with_name(real.name + "-shm")}
