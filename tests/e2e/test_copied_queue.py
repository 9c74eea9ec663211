"""A copy of a queue is a queue of its own, on the same machine too."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Daemon, is_running, wait_for


@pytest.mark.parametrize("with_locks", [False, True])
def test_a_daemon_on_a_copy_leaves_the_originals_jobs_alone(
    make_daemon: Callable[..., Daemon], directory: Path, with_locks: bool
) -> None:
    gate = directory / "gate"
    original = make_daemon("--workers", "1").start()
    job = original.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 5", max_retries=1)
    original.wait_state(job, "processing")
    (worker,) = original.wait_workers(1, "busy")
    copy = make_daemon()
    copy.state_dir.mkdir(mode=0o700)
    original.call("server.backup", path=str(copy.state_dir / "queue.db"))
    if with_locks:
        shutil.copytree(original.state_dir / "workers", copy.state_dir / "workers")
    copy.start("--workers", "0")
    assert copy.wait_state(job, "dead")["error"] == "worker lost"
    assert is_running(worker["pid"])
    assert original.job(job)["state"] == "processing"
    gate.touch()
    assert original.wait_state(job, "dead")["exit_code"] == 5


def test_a_backup_put_back_does_not_continue_old_logs(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    backup = directory / "backup.db"
    daemon = make_daemon("--workers", "1").start()
    daemon.call("server.backup", path=str(backup))
    daemon.wait_state(daemon.enqueue("echo from before", id="a"), "completed")
    assert daemon.stop() == 0
    for name in ("queue.db-wal", "queue.db-shm"):
        (daemon.state_dir / name).unlink(missing_ok=True)
    (daemon.state_dir / "queue.db").write_bytes(backup.read_bytes())
    daemon.start()
    daemon.wait_state(daemon.enqueue("echo from after", id="b"), "completed")
    assert daemon.output("b") == "from after\n"
    assert daemon.stop() == 0
    with sqlite3.connect(daemon.state_dir / "queue.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    wait_for(lambda: not list((daemon.state_dir / "workers").iterdir()), "no lock to be left")
