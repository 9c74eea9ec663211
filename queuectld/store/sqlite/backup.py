"""Copies of the database that are consistent, whole, and on disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from queuectld import failpoints
from queuectld.store.base import AlreadyThere, GivenUp, StorageError, StorageFull
from queuectld.store.sqlite.connection import open_raw, open_reader
from queuectld.store.sqlite.errors import NO_ROOM, translate

_PAGES_A_STEP = 4096
"""16 MiB: some milliseconds, between which it can be given up."""


_UNFINISHED = (".queuectl-backup-", ".part")
"""How the name of a copy that is being written begins and ends. It is locked meanwhile."""


def write_backup(
    source: Path, target: Path, give_up: Callable[[], bool] = lambda: False, *, replace: bool = False
) -> int:
    """Copy what is committed to `target`, a new file, or with `replace` over an older copy; how many bytes it has.

    The database may be written meanwhile. The copy is made over a connection of its own, which holds one snapshot, so
    no busy writer makes it begin again. `target` is there only when it is whole and on disk.

    Raises:
        GivenUp: `give_up`, asked again and again meanwhile, said so.
        AlreadyThere: `target`, which is left as it is.
        StorageFull: no room for the copy.
        StorageError: the copy can't be written; the message says why.
    """
    temporary: Path | None = None
    descriptor = -1
    try:
        if not replace and os.path.lexists(target):
            raise AlreadyThere(f"{target} is there already")
        _check_name(source, target)
        _remove_unfinished(target.parent)
        descriptor, temporary = _new_file(target.parent)
        _copy(source, temporary, give_up)
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        failpoints.hit("backup.copied")
        if replace:
            temporary.rename(target)
        else:
            _give_name(temporary, target)
        fsync(target.parent)
    except sqlite3.Error as error:
        raise translate(error, target.parent / "copy") from error
    except FileExistsError as error:
        raise AlreadyThere(f"{target} is there already") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull(f"no room for the copy {target}: free some disk space") from error
        raise StorageError(f"can't write the copy {target}: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
    return size


def _check_name(source: Path, target: Path) -> None:
    if Path(os.path.realpath(target.parent), target.name) in _own_files(source):
        raise StorageError(f"{target} is the database itself: name another file for the copy")
    if os.path.lexists(target.with_name(target.name + "-wal")):
        # It would be taken for the copy's own write-ahead log, and ruin it.
        raise StorageError(
            f"{target} is a database in use ({target.name}-wal is there): name another file for the copy"
        )


def _new_file(directory: Path) -> tuple[int, Path]:
    """An empty file that only its owner can read, under a name that nobody has, and the descriptor that locks it."""
    beginning, end = _UNFINISHED
    while True:
        descriptor, name = tempfile.mkstemp(prefix=beginning, suffix=end, dir=directory)
        os.fchmod(descriptor, 0o600)  # whatever the umask
        with contextlib.suppress(OSError):  # a file system without locks has none that _remove_unfinished gets either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else another backup found it before it was locked
            return descriptor, Path(name)
        os.close(descriptor)


def _remove_unfinished(directory: Path) -> None:
    """Remove what killed daemons were writing: nobody has it locked."""
    beginning, end = _UNFINISHED
    for path in directory.glob(f"{beginning}*{end}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _give_name(temporary: Path, target: Path) -> None:
    """Give the copy its name, as long as nobody has it.

    Raises:
        FileExistsError: somebody has it.
    """
    try:
        target.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        create_private(target)  # a file system without links (FAT): the name is taken first, then filled
        temporary.rename(target)


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
