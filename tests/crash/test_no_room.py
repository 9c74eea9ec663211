"""A disk that takes no more, for whatever reason: what is refused changed nothing; with room again all goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.host import diskspace
from tests.crash.trace import attached, needs_strace
from tests.harness import Daemon, RefusedError, is_running, wait_for


def no_room(error: str = "ENOSPC") -> list[str]:
    """The command under which no file takes any more."""
    return [*["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"], f"inject=pwrite64:error={error}"]


def refusal(daemon: Daemon, method: str, **params: object) -> str:
    with pytest.raises(RefusedError) as refused:
        daemon.call(method, **params)
    return str(refused.value.kind)


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_quota_and_a_limit_of_sizes_are_a_full_disk_and_no_failure(pool: Daemon, error: str) -> None:
    gate = pool.directory / "gate"
    running = pool.enqueue(f"until [ -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    pool.wait_state(running, "processing")
    with attached(pool.pid, no_room(error)):
        for _ in range(2):
            assert refusal(pool, "job.enqueue", jobs=[{"command": "true", "id": "new"}]) == "storage_full"
        assert refusal(pool, "job.cancel", ids=[running]) == "storage_full"
        gate.touch()
        wait_for(lambda: list((pool.state_dir / "exits").glob("*.json")), "the outcome to be kept in a file")
    assert pool.wait_state(running, "dead")["exit_code"] == 7
    assert pool.enqueue("true", id="new") == "new"
    pool.wait_state("new", "completed")
    assert not list(pool.state_dir.glob(".probe*"))


def test_a_log_of_the_database_that_may_grow_no_more(daemon: Daemon) -> None:
    """EFBIG as the kernel says it, where `ulimit -f` or the file system has a limit."""
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    limit = (daemon.state_dir / "queue.db-wal").stat().st_size + 100_000
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (limit, hard))
    jobs = [{"command": "x" * 1000}] * 500
    assert refusal(daemon, "job.enqueue", jobs=jobs) == "storage_full"
    assert is_running(daemon.pid)
    assert daemon.call("status.get")["counts"]["pending"] == 0
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert len(daemon.call("job.enqueue", jobs=jobs)["ids"]) == 500


@needs_strace
def test_a_refused_change_of_the_pool_changes_nothing(pool: Daemon) -> None:
    before = {worker["id"]: worker["pid"] for worker in pool.wait_workers(2)}
    with attached(pool.pid, no_room()):
        for method, params in (
            ("worker.start", {"count": 2}),
            ("worker.stop", {}),
            ("worker.stop", {"ids": [next(iter(before))], "now": True}),
            ("config.set", {"key": "kill_grace", "value": 7}),
        ):
            assert refusal(pool, method, **params) == "storage_full"
            assert pool.call("worker.list")["desired"] == 2
    assert {worker["id"]: worker["pid"] for worker in pool.wait_workers(2)} == before
    assert pool.call("config.get", key="kill_grace")["value"] == 1
    # With room again, what is asked for is what happens: nothing of the refused requests is added to it.
    assert len(pool.call("worker.start", count=1)["ids"]) == 1
    assert len(pool.wait_workers(3)) == 3
    assert sorted(pool.call("worker.stop", ids=sorted(before))["ids"]) == sorted(before)
    wait_for(lambda: not {worker["id"] for worker in pool.workers()} & set(before), "the stopped workers to be gone")
    assert len(pool.wait_workers(1)) == 1


@pytest.fixture
def few_files(directory: Path) -> Iterator[Path]:
    """A file system that has room for 500 files."""
    place = directory / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=500,mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can't be mounted here: that takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.root
def test_without_inodes_a_job_is_refused_and_not_started(directory: Path, few_files: Path) -> None:
    """Its log could not be made: it would be dead a minute later."""
    daemon = Daemon(directory)
    daemon.state_dir = few_files / "state"
    try:
        daemon.start("--workers", "1")
        daemon.wait_workers(1)
        daemon.enqueue("true", id="delayed", delay=0.5)
        fillers = [few_files / f"filler-{number}" for number in range(os.statvfs(few_files).f_favail)]
        for filler in fillers:
            filler.touch()
        time.sleep(diskspace.LOOK)  # an older look counts no longer, however fast this machine is
        assert refusal(daemon, "job.enqueue", jobs=[{"command": "true"}]) == "storage_full"
        daemon.kill()
        daemon.start()
        assert refusal(daemon, "job.enqueue", jobs=[{"command": "true"}]) == "storage_full"
        assert daemon.job("delayed")["state"] == "pending"
        for filler in fillers:
            filler.unlink()
        assert [attempt["outcome"] for attempt in daemon.wait_state("delayed", "completed", "dead")["history"]] == [
            "completed"
        ]
        daemon.wait_state(daemon.enqueue("true"), "completed")
        assert daemon.stop() == 0
    finally:
        daemon.clean_up()
