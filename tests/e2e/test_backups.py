"""Backups: whoever asks for one, at whatever moment and by whatever name, gets a whole database or a clear no."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import Daemon, RefusedError


def jobs_in(copy: Path) -> int:
    """How many jobs a database holds that is whole."""
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((count,),) = database.execute("SELECT count(*) FROM jobs").fetchall()
        return int(count)


def ask(daemon: Daemon, path: Path) -> str:
    """What a backup comes to: "done", if the copy is whole at that moment, or the kind of the refusal."""
    try:
        size = daemon.call("server.backup", path=str(path))["bytes"]
    except RefusedError as refusal:
        return str(refusal.kind)
    assert path.stat().st_size == size
    assert jobs_in(path) == 2000
    return "done"


def test_of_several_at_once_by_one_name_one_is_written_and_that_one_is_whole(daemon: Daemon) -> None:
    for _ in range(4):
        daemon.call("job.enqueue", jobs=[{"command": "x" * 1000, "delay": 3600}] * 500)
    with ThreadPoolExecutor(4) as threads:
        for number in range(5):
            path = daemon.directory / f"copy-{number}.db"
            assert sorted(threads.map(lambda _: ask(daemon, path), range(4))) == ["conflict"] * 3 + ["done"]  # noqa: B023
    assert len(list(daemon.directory.glob("*copy*"))) == 5, "nothing else is left"


def test_a_file_that_only_looks_like_an_unfinished_backup_is_left_alone(daemon: Daemon) -> None:
    mine = daemon.directory / ".copy.db.part"
    mine.write_text("precious")
    daemon.call("server.backup", path=str(daemon.directory / "copy.db"))
    assert mine.read_text() == "precious"


def test_the_longest_name_is_no_fault_and_a_longer_one_is_told(daemon: Daemon) -> None:
    longest = daemon.directory / ("x" * 255)
    assert daemon.call("server.backup", path=str(longest))["bytes"] == longest.stat().st_size
    assert longest.read_bytes().startswith(b"SQLite format 3\0")
    loop = daemon.directory / "loop"
    loop.symlink_to(loop)
    for path in (daemon.directory / ("x" * 256), Path("/", "y" * 4000), loop / "copy.db", loop, Path("/")):
        with pytest.raises(RefusedError) as refused:
            daemon.call("server.backup", path=str(path))
        assert refused.value.kind == ("conflict" if path in (loop, Path("/")) else "invalid_params"), path
    assert "Traceback" not in daemon.log.read_text()
