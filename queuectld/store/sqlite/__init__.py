"""The store on SQLite: one file, durable at each commit. `open_store` is the way in."""

from queuectld.store.sqlite.reading import SqliteReader
from queuectld.store.sqlite.store import SqliteStore, open_store, rehearse_opening

__all__ = ["SqliteReader", "SqliteStore", "open_store", "rehearse_opening"]
