"""A connection to the database file: how it is opened, and statements that raise the store's errors, not SQLite's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from queuectld.store.sqlite.errors import translate

Row = tuple[Any, ...]
Values = Sequence[Any]

BUSY_SECONDS = 5.0
"""For so long the one writer waits where a foreign program (sqlite3(1) at work on the file) has locked the database."""
_STATEMENTS = 256
_WRITER_CACHE_KIB = 8 * 1024
_READER_CACHE_KIB = 1024
_CHECKPOINT_PAGES = 2000
"""8 MiB: a page that changes often is copied to the database once for many commits."""
_WAL_KEPT_BYTES = 32 * 1024 * 1024
"""A write-ahead log that grew beyond (a long reader, a huge transaction) is cut back when it is begun anew."""

_STEPS_BETWEEN_LOOKS = 10_000
"""Instructions of SQLite's machine: some milliseconds."""


_NOT_UTF8 = "Could not decode to UTF-8"
"""How the driver's own complaint begins, which has no code."""


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def text_size(row: Row) -> int:
    """About how many bytes the texts of a row hold."""
    return sum(len(value) for value in row if isinstance(value, str | bytes))


def _fetched(cursor: sqlite3.Cursor, most: int | None) -> list[Row]:
    if most is None:
        return cursor.fetchall()
    rows: list[Row] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += text_size(row)
        if size > most:
            break
    cursor.close()
    return rows


class Connection:
    """Runs statements, and raises StorageError only. Every result is fetched whole: no statement stays open.

    An open statement would hold a read transaction, and with it every later page of the write-ahead log.
    """

    def __init__(self, raw: sqlite3.Connection, path: Path) -> None:
        self._raw = raw
        self._path = path

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def rows(self, statement: str, values: Values = (), most: int | None = None) -> list[Row]:
        """All rows, or no more after one with which they hold over `most` bytes of text."""
        try:
            return _fetched(self._raw.execute(statement, values), most)
        except sqlite3.OperationalError as error:
            if not str(error).startswith(_NOT_UTF8):
                raise translate(error, self._path) from error
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return self._rows_with_bytes(statement, values, most)

    def _rows_with_bytes(self, statement: str, values: Values, most: int | None) -> list[Row]:
        """With bytes where a text is not UTF-8: one such value must not hide all the others."""
        self._raw.text_factory = _text_or_bytes
        try:
            return _fetched(self._raw.execute(statement, values), most)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        finally:
            self._raw.text_factory = str

    def row(self, statement: str, values: Values = ()) -> Row | None:
        """The first row; None if there is none."""
        rows = self.rows(statement, values)
        return rows[0] if rows else None

    def rows_unless(self, give_up: Callable[[], bool], statement: str) -> list[Row] | None:
        """As `rows`; None where `give_up`, asked every few milliseconds, said so."""
        self._raw.set_progress_handler(give_up, _STEPS_BETWEEN_LOOKS)
        try:
            return self._raw.execute(statement).fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                return None
            raise translate(error, self._path) from error
        finally:
            self._raw.set_progress_handler(None, 0)

    def run(self, statement: str, values: Values = ()) -> int:
        """How many rows it changed."""
        try:
            return self._raw.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def insert(self, statement: str, values: Values) -> tuple[int, int]:
        """How many rows it inserted, and the number of the last of them."""
        try:
            cursor = self._raw.execute(statement, values)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return cursor.rowcount, cursor.lastrowid or 0

    def close(self) -> None:
        try:
            self._raw.close()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error


def open_raw(path: Path, mode: str) -> sqlite3.Connection:
    """A bare connection in autocommit mode.

    Args:
        path: the database.
        mode: `ro`, `rw` or `rwc`, as SQLite's URIs have it.

    Raises:
        sqlite3.Error: as SQLite says it; often only the first statement finds out.
    """
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        cached_statements=_STATEMENTS,
        check_same_thread=False,  # opened in one thread, then owned by another; never used by two at a time
    )


def prepare_writer(raw: sqlite3.Connection) -> None:
    """Set up the connection that owns the database.

    Raises:
        sqlite3.Error: as SQLite says it, or where the file system can't do WAL.
    """
    ((mode,),) = raw.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise sqlite3.OperationalError("the file system can't do WAL: use a local one")
    for pragma in (
        "synchronous = FULL",  # a commit returns when it is on disk
        "foreign_keys = ON",
        "secure_delete = ON",  # environments hold secrets; many builds have it on by themselves
        f"cache_size = -{_WRITER_CACHE_KIB}",
        "temp_store = MEMORY",  # undoing a part must not depend on room in /tmp
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"journal_size_limit = {_WAL_KEPT_BYTES}",
    ):
        raw.execute(f"PRAGMA {pragma}").fetchall()


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't change anything.

    Raises:
        sqlite3.Error: as SQLite says it.
    """
    raw = open_raw(path, "ro")
    raw.execute("PRAGMA query_only = ON").fetchall()
    raw.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}").fetchall()
    return raw
