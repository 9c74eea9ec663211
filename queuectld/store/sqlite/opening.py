"""From a path to a database that is ours, whole and of this version; or a clear refusal that changes nothing.

A new database is made under another name and renamed when it is complete, so a file at `path` is never half made.
Nothing here repairs, empties or replaces a file that is there: what looks damaged may be all that is left of someone's
jobs.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from queuectld.store.base import StorageError, StorageFull, StorageUnusable
from queuectld.store.sqlite.backup import create_private, fsync, write_backup
from queuectld.store.sqlite.connection import open_raw, prepare_writer
from queuectld.store.sqlite.errors import primary_code, translate
from queuectld.store.sqlite.migrations import APPLICATION_ID, Migration

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = slice(68, 72)
_RESTORE = (
    "move it away, with the -wal file beside it if there is one; "
    "then put a backup in its place, or start with an empty queue"
)


def open_database(path: Path, migrations: Sequence[Migration], *, keep_old: bool = True) -> sqlite3.Connection:
    """The connection that owns the database at `path`, which is made if there is none, and migrated if it is older.

    The caller is the only owner (it holds the state directory's lock).

    Args:
        path: the database.
        migrations: all of them.
        keep_old: put a copy beside it before it is migrated.

    Raises:
        StorageUnusable: what is at `path` was left as it was.
        StorageFull: no room to make it, or for a migration and its backup.
        StorageError: a migration's backup could not be written.
    """
    newest = migrations[-1].number
    with _refusals(path):
        if not is_there(path):
            _create(path, migrations)
    version = version_of(path, migrations)
    with _refusals(path):
        raw = open_raw(path, "rw")
    try:
        prepare_writer(raw)
        if version < newest and keep_old:
            write_backup(path, path.with_name(f"{path.name}.before-{version + 1}"), replace=True)
        if version < newest:
            _migrate(raw, version, migrations)
    except sqlite3.Error as error:
        raw.close()
        raise _refusal(path, error) from error
    except BaseException:
        raw.close()
        raise
    return raw


def is_there(path: Path) -> bool:
    """Whether anything is; a link that leads nowhere too."""
    return path.is_symlink() or path.exists()


def version_of(path: Path, migrations: Sequence[Migration]) -> int:
    """The number of the last migration of the database at `path`, which may be in use by another process, not by this.

    Raises:
        StorageUnusable: it is no database that can be opened by who knows these migrations.
    """
    with _refusals(path):
        _check_header(path)
        return _check_version(path, migrations[-1].number)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _refusal(path, error) from error
    except OSError as error:
        raise StorageUnusable(
            f"can't open the database {path} ({error.strerror}): it must be readable and writable for this user"
        ) from error


def _refusal(path: Path, error: sqlite3.Error) -> StorageError:
    code = primary_code(error)
    known = translate(error, path)
    if isinstance(known, StorageFull):
        return known
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageUnusable(f"the database {path} is damaged ({error}): {_RESTORE}")
    return StorageUnusable(
        f"can't open the database {path} ({error}): it must be on a local file system, "
        "writable for this user, and used by no other program"
    )


def _check_header(path: Path) -> None:
    """Look at the bytes themselves, before SQLite does, which would take an empty file for a new database.

    Opening the file here is harmless only because this process has no SQLite connection to it yet.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind):
        raise StorageUnusable(f"{path} is not a file, so it can't be the database: move it away")
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        raise StorageUnusable(f"the database {path} is empty (0 bytes), as after a disk failure: {_RESTORE}")
    if not header.strip(b"\0"):
        raise StorageUnusable(f"the database {path} begins with zeros, as after a disk failure: {_RESTORE}")
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StorageUnusable(f"{path} is damaged, or no database at all: {_RESTORE}")
    if header[_APPLICATION_ID_AT] != APPLICATION_ID.to_bytes(4, "big"):
        raise StorageUnusable(f"{path} is the database of another program: name another state directory")
    for needed in (path, path.parent):
        if not os.access(needed, os.R_OK | os.W_OK):
            raise StorageUnusable(f"{needed} is not writable for this user: change its owner or mode")


def _check_version(path: Path, newest: int) -> int:
    """The number of its last migration; read-only, with what a killed owner left in the write-ahead log."""
    reader = open_raw(path, "ro")
    try:
        ((version,),) = reader.execute("PRAGMA user_version").fetchall()
        reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
    finally:
        reader.close()
    if version > newest:
        raise StorageUnusable(
            f"the database {path} is of a newer queuectld (schema {version}, this one knows {newest}): "
            f"start that version, or restore the backup it made ({path.name}.before-*)"
        )
    if version < 1:
        raise StorageUnusable(f"the database {path} has no version (schema {version}): {_RESTORE}")
    return int(version)


def _create(path: Path, migrations: Sequence[Migration]) -> None:
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StorageUnusable(
            f"{path} is gone, but its write-ahead log {log.name} is there: "
            "put the two together again, or move the log away"
        )
    if not os.access(path.parent, os.W_OK):
        raise StorageUnusable(f"{path.parent} is not there, or not writable for this user: the database can't be made")
    new = path.with_name(f".{path.name}.new")
    for leftover in (new, new.with_name(new.name + "-wal"), new.with_name(new.name + "-shm")):
        leftover.unlink(missing_ok=True)  # of an owner that was killed while it made one: nothing is in it
    create_private(new)
    raw = open_raw(new, "rw")
    try:
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
        prepare_writer(raw)
        _migrate(raw, 0, migrations)
    finally:
        raw.close()  # with a checkpoint: nothing stays in a side file
    fsync(new)
    new.rename(path)
    fsync(path.parent)


def _migrate(raw: sqlite3.Connection, version: int, migrations: Sequence[Migration]) -> None:
    """All or none. Foreign keys are checked at the end, so that a migration may rebuild a table."""
    raw.execute("PRAGMA foreign_keys = OFF").fetchall()
    raw.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations:
            if migration.number > version:
                for statement in migration.statements:
                    raw.execute(statement)
        _check_references(raw)
        raw.execute(f"PRAGMA user_version = {migrations[-1].number}")
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    raw.execute("PRAGMA foreign_keys = ON").fetchall()


def _check_references(raw: sqlite3.Connection) -> None:
    if raw.execute("PRAGMA foreign_key_check").fetchall():
        raise sqlite3.IntegrityError("a migration broke a reference between tables")
