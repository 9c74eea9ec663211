"""What reads the whole database: a copy of it, and a look for damage."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from queuectld.store.base import GivenUp, OutOfTime, StorageFailed
from queuectld.store.sqlite.backup import write_backup
from queuectld.store.sqlite.connection import Connection, open_reader
from queuectld.store.sqlite.errors import translate

_MAX_FINDINGS = 20


class SqliteMaintenance:
    """See base.Maintenance. Each call has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def backup(self, path: Path, give_up: Callable[[], bool] = lambda: False) -> int:
        return write_backup(self._path, path, give_up)

    def integrity_check(self, patience: float = 60.0, give_up: Callable[[], bool] = lambda: False) -> list[str]:
        deadline = time.monotonic() + patience
        try:
            db = Connection(open_reader(self._path), self._path)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        try:
            rows = db.rows_unless(
                lambda: give_up() or time.monotonic() > deadline, f"PRAGMA quick_check({_MAX_FINDINGS})"
            )
        except StorageFailed as error:
            return [str(error)]
        finally:
            db.close()
        if give_up():
            raise GivenUp("the check was given up")
        if rows is None:
            raise OutOfTime(f"not done in {patience:g} s")
        return [] if rows == [("ok",)] else [str(text) for (text,) in rows][:_MAX_FINDINGS]
