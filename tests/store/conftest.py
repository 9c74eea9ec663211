"""Stores to test: `store` is each of them in turn, `sqlite` the one that is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.store.base import Store
from queuectld.store.sqlite import SqliteStore
from tests.store.jobs import sqlite_store
from tests.store.memory import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else sqlite_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = sqlite_store(tmp_path)
    yield opened
    opened.close()
