"""Disks that fail and disks that are full: nothing is acknowledged that is not on disk, and all goes on afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from queuectld.daemon import INTEGRITY_VARIABLE
from queuectld.host import diskspace
from tests.crash.trace import attached, command, needs_strace, told_too_early
from tests.crash.witness import QUICK, Witness, check_counts, check_jobs, check_left, jobs_of
from tests.harness import PATIENCE, Daemon, RefusedError, Wire, running_daemon, wait_for

MEBIBYTE = 1024 * 1024


def _start(daemon: Daemon, workers: int = 1) -> None:
    daemon.start("--workers", str(workers))
    for key, value in QUICK.items():
        daemon.call("config.set", key=key, value=value)
    daemon.wait_workers(workers)


def _kind(call: Callable[[], object]) -> str:
    """What the daemon says no with; "" if it says yes."""
    try:
        call()
    except RefusedError as refusal:
        kind: str = refusal.kind
        return kind
    return ""


# --- the disk fails ---------------------------------------------------------------------------------------------------

FAILING = [
    *(("fdatasync", "EIO", number) for number in (1, 2, 3, 5)),
    ("fdatasync", "ENOSPC", 2),  # of a delayed allocation: whether the data is there is as unknown as after EIO
    *(("pwrite64", "EIO", number) for number in (1, 2, 3, 30)),
]


@needs_strace
@pytest.mark.parametrize(("call", "error", "number"), FAILING)
def test_a_commit_that_failed_is_never_acknowledged(directory: Path, call: str, error: str, number: int) -> None:
    daemon, witness = Daemon(directory), Witness(directory)
    jobs = [witness.job(f"job-{number}", delay=0) for number in range(40)]
    acknowledged: list[str] = []
    try:
        _start(daemon)
        daemon.call("job.enqueue", jobs=[witness.gated("running", exit_code=7, max_retries=1)])
        witness.wait_begun("running")
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}+"]
        with attached(daemon.pid, command(daemon, *inject)):

            def enqueue_all(wire: Wire) -> None:
                for job in jobs:
                    acknowledged.extend(wire.call("job.enqueue", jobs=[job])["ids"])

            with daemon.wire() as wire:
                refusal = _kind(lambda: enqueue_all(wire))
            assert refusal == "storage_failed"
            assert daemon.process is not None
            assert daemon.process.wait(PATIENCE) == 1
        assert "the storage failed" in daemon.log.read_text()
        assert "Traceback" not in daemon.log.read_text()
        witness.open_gate("running")
        wait_for(lambda: witness.count("end", "running"), "the running job to end while no daemon runs")
        daemon.start()
        for job_id in acknowledged:
            daemon.job(job_id)
        assert daemon.call("job.enqueue", jobs=jobs)["ids"] == [job["id"] for job in jobs]
        for job in jobs:
            daemon.wait_state(job["id"], "completed")
        daemon.wait_state("running", "dead")
        done = check_jobs(daemon, witness, lost=0)
        assert done["running"]["exit_code"] == 7
        assert {witness.count("begin", job_id) for job_id in done} == {1}
        assert daemon.stop() == 0
        check_left(daemon)
    finally:
        daemon.clean_up()


@needs_strace
def test_a_disk_that_fails_during_a_stop_ends_it_at_once_and_uncleanly(directory: Path) -> None:
    daemon, witness = Daemon(directory), Witness(directory)
    try:
        _start(daemon)
        daemon.call("config.set", key="shutdown_timeout", value=3600)
        daemon.call("job.enqueue", jobs=[witness.gated("running"), witness.gated("other")])
        daemon.call("worker.start", count=1)
        witness.wait_begun("running")
        witness.wait_begun("other")
        os.kill(daemon.pid, signal.SIGTERM)
        wait_for(lambda: daemon.call("server.info")["stopping"], "the daemon to be stopping")
        with attached(daemon.pid, command(daemon, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO")):
            witness.open_gate("running")
            assert daemon.process is not None
            assert daemon.process.wait(PATIENCE) == 1, "without waiting for the other one"
        witness.open_gate("other")
        wait_for(lambda: witness.count("end", "other"), "the other job to end while no daemon runs")
        daemon.start()
        wait_for(lambda: "the last stop was not clean" in daemon.log.read_text(), "the database to be checked")
        for job_id in ("running", "other"):
            daemon.wait_state(job_id, "completed")
        check_jobs(daemon, witness, lost=0)
        assert daemon.stop() == 0
        check_left(daemon)
    finally:
        daemon.clean_up()


class TracedDaemon(Daemon):
    """A daemon that was started by strace; `pid` is strace's."""

    options: tuple[str, ...] = ()

    def spawn(self, *arguments: str) -> None:
        program = [sys.executable, "-m", "queuectld", "--state-dir", str(self.state_dir), "--socket", str(self.socket)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command(self, *self.options), *program, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/",
            )  # fmt: skip


@needs_strace
@pytest.mark.parametrize("fresh", [True, False], ids=["new database", "old database"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_a_start_on_a_disk_that_fails_says_so(directory: Path, call: str, error: str, *, fresh: bool) -> None:
    daemon = Daemon(directory)
    traced = TracedDaemon(directory)
    # For each thread its own count: the first of the one that opens the database, and the first of the committer's.
    new = str(daemon.state_dir / ".queue.db.new")
    files = ("-P", new, "-P", f"{new}-wal")
    traced.options = (*files, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1+")
    try:
        if not fresh:
            daemon.start("--workers", "1")
            daemon.wait_state(daemon.enqueue("true", id="before"), "completed")
            assert daemon.stop() == 0
        # Another size of the pool is the first thing that is written to a database that is there.
        traced.spawn("--workers", "0")
        assert traced.process is not None
        if not fresh and (call, error) == ("pwrite64", "ENOSPC"):
            # That much is harmless: it starts, so that what runs is told to somebody, and the rest waits for room.
            traced.wait_ready()
            assert "no room" in traced.log.read_text()
            os.kill(traced.call("server.info")["pid"], signal.SIGTERM)
            assert traced.process.wait(PATIENCE) == 0
        else:
            assert traced.process.wait(PATIENCE) == 1
            # A failed fdatasync leaves open what is on disk, whatever its reason: so it is never only "full".
            assert ("room" if (call, error) == ("pwrite64", "ENOSPC") else "disk") in traced.log.read_text()
        assert "Traceback" not in traced.log.read_text()
        daemon.start("--workers", "1")
        if not fresh:
            daemon.wait_state("before", "completed")
        assert daemon.stop() == 0
        check_left(daemon)
    finally:
        traced.clean_up()
        daemon.clean_up()


@needs_strace
def test_a_file_system_without_locks_is_told_of(directory: Path) -> None:
    traced = TracedDaemon(directory)
    traced.options = (
        "-P",
        str(traced.state_dir / "daemon.lock"),
        "-e",
        "trace=flock",
        "-e",
        "inject=flock:error=ENOLCK",
    )
    try:
        traced.spawn()
        assert traced.process is not None
        assert traced.process.wait(PATIENCE) == 1
        said = traced.log.read_text()
        assert "can't be locked: No locks available" in said
        assert "local file system" in said
        assert "Traceback" not in said
    finally:
        traced.clean_up()


@needs_strace
def test_while_nothing_can_be_written_all_waits_and_then_goes_on_by_itself(directory: Path) -> None:
    witness = Witness(directory)
    with running_daemon(directory, "--workers", "3", settings=QUICK) as daemon:
        daemon.wait_workers(3)
        daemon.call("job.enqueue", jobs=[witness.gated("finishes", exit_code=7, max_retries=1), witness.gated("lost")])
        daemon.call("job.enqueue", jobs=[witness.gated("cancelled")])
        for job_id in ("finishes", "lost", "cancelled"):
            witness.wait_begun(job_id)
        full = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC"]
        late = witness.job("late")
        with attached(daemon.pid, command(daemon, *full)):
            for _ in range(3):
                assert _kind(lambda: daemon.call("job.enqueue", jobs=[late])) == "storage_full"
            assert _kind(lambda: daemon.call("job.cancel", ids=["cancelled"])) == "storage_full"
            witness.open_gate("finishes")
            os.kill(daemon.worker_of("lost"), signal.SIGKILL)
            wait_for(lambda: list((daemon.state_dir / "exits").glob("*.json")), "the outcome to be kept in a file")
            wait_for(lambda: "worker vanished" in daemon.log.read_text(), "the dead worker to be noticed")
            # Reading goes on, and nothing was changed.
            assert {job["state"] for job in jobs_of(daemon).values()} == {"processing"}
        daemon.call("job.enqueue", jobs=[late])
        daemon.call("job.cancel", ids=["cancelled"])
        witness.wait_begun("lost", 2)
        witness.open_gate("lost")
        for job_id in ("finishes", "lost", "cancelled", "late"):
            daemon.wait_state(job_id, "completed", "dead", "cancelled")
        jobs = check_jobs(daemon, witness, lost=1)
        assert (jobs["finishes"]["state"], jobs["finishes"]["exit_code"]) == ("dead", 7)
        assert witness.count("begin", "finishes") == 1
        assert jobs["cancelled"]["state"] == "cancelled"
        assert [attempt["outcome"] for attempt in jobs["lost"]["history"]] == ["lost", "completed"]
        assert daemon.stop() == 0
        check_left(daemon)


@needs_strace
@pytest.mark.parametrize(("call", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("fsync", "ENOSPC")])
def test_an_outcome_that_can_not_be_kept_is_tried_again(directory: Path, call: str, error: str) -> None:
    witness = Witness(directory)
    with running_daemon(directory, "--workers", "1", settings=QUICK) as daemon:
        daemon.wait_workers(1)
        daemon.call("job.enqueue", jobs=[witness.gated("job", exit_code=7, max_retries=1)])
        witness.wait_begun("job")
        (worker,) = daemon.workers()
        daemon.kill()
        exits = daemon.state_dir / "exits"
        failing = ["-P", str(exits / "1.1.tmp"), "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1..2"]
        with attached(worker["pid"], ["strace", "-f", "-qq", "-o", str(directory / "trace"), *failing]):
            witness.open_gate("job")
            wait_for(lambda: list(exits.glob("*.json")), "the outcome to be kept in a file")
        assert (directory / "trace").read_text().count("(INJECTED)") == 2
        assert daemon.log.read_text().count("can't write the exit record") == 1, "it is said, but not again and again"
        os.kill(worker["pid"], signal.SIGKILL)
        daemon.start()
        job = daemon.wait_state("job", "dead")
        assert job["exit_code"] == 7
        check_jobs(daemon, witness, lost=0)
        assert daemon.stop() == 0
        check_left(daemon)


# --- the machine lacks processes --------------------------------------------------------------------------------------

_FORK = "trace=clone,clone3,vfork,fork"


def _no_fork(when: str, error: str = "EAGAIN") -> list[str]:
    return [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        _FORK,
        "-e",
        f"inject=clone,clone3,vfork,fork:error={error}:when={when}",
    ]


@needs_strace
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_job_that_can_not_be_started_just_now_is_started_later(directory: Path, error: str) -> None:
    with running_daemon(directory, "--workers", "1", settings=QUICK) as daemon:
        daemon.wait_workers(1)
        (worker,) = daemon.workers()
        with attached(worker["pid"], _no_fork("1..4", error)):
            job = daemon.wait_state(daemon.enqueue("echo there", max_retries=1), "completed", "dead")
        assert [attempt["outcome"] for attempt in job["history"]] == ["completed"], job["error"]
        assert daemon.output(job["id"]) == "there\n"


@needs_strace
def test_what_waits_to_be_started_can_be_ended(directory: Path) -> None:
    with running_daemon(directory, "--workers", "1", settings=QUICK) as daemon:
        daemon.wait_workers(1)
        (worker,) = daemon.workers()
        with attached(worker["pid"], _no_fork("1+")):
            first = daemon.enqueue("true", max_retries=1)
            daemon.wait_state(first, "processing")
            daemon.call("job.cancel", ids=[first])
            assert [attempt["outcome"] for attempt in daemon.wait_state(first, "cancelled")["history"]] == ["cancelled"]
            second = daemon.enqueue("true", max_retries=1)
            os.kill(daemon.worker_of(second), signal.SIGTERM)
            wait_for(lambda: daemon.job(second)["history"][0]["outcome"] == "interrupted", "it to be given back")
        assert len(daemon.wait_state(second, "completed")["history"]) == 2


# --- the order --------------------------------------------------------------------------------------------------------

_SYNCED = """\
7 pwrite64(5</q/queue.db-wal>, "..a-1..", 4096, 0) = 4096
7 fdatasync(5</q/queue.db-wal> <unfinished ...>
8 recvfrom(9, "", 1, 0) = 0
7 <... fdatasync resumed>) = 0
8 sendto(9<UNIX-STREAM:[1->2]>, "{\\"id\\":1,\\"result\\":{\\"ids\\":[\\"a-1\\"]}}\\n", 9, 0, NULL, 0) = 9
"""


def test_the_check_of_the_order_finds_what_it_looks_for() -> None:
    lines = _SYNCED.splitlines()
    assert told_too_early(_SYNCED, ["a-1"]) == []
    before_its_end = [*lines[:2], lines[4], lines[3]]
    not_at_all = [lines[0], lines[4]]
    of_what_was_before = [lines[1], lines[0], lines[3], lines[4]]
    failed = [*lines[:3], "7 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)", lines[4]]
    for wrong in (before_its_end, not_at_all, of_what_was_before, failed):
        assert told_too_early("\n".join(wrong), ["a-1"]) == ["a-1"], wrong
    with pytest.raises(AssertionError):
        told_too_early(_SYNCED, ["a-2"])


@needs_strace
def test_no_reply_leaves_before_what_it_acknowledges_is_on_disk(daemon: Daemon) -> None:
    clients, each = 4, 25
    trace = daemon.directory / "trace"
    options = ["strace", "-f", "-qq", "-yy", "-s", "8192", "-o", str(trace)]
    calls = ["-e", "trace=pwrite64,fdatasync,sendto,sendmsg,write,writev"]

    def client(number: int) -> None:
        with daemon.wire() as wire:
            for request in range(each):
                wire.send("job.enqueue", jobs=[{"id": f"order-{number}-{request:02}", "command": "true"}])
            for _ in range(each):
                assert "result" in wire.receive()

    with attached(daemon.pid, [*options, *calls]):
        daemon.enqueue("true", id="order-alone")
        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = ["order-alone", *(f"order-{number}-{request:02}" for number in range(clients) for request in range(each))]
    assert told_too_early(trace.read_text(), ids) == []


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    place = directory / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can't be mounted here: that takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _fill(disk: Path) -> Path:
    """Take all room that is left, and wait until a daemon must have noticed at its next request."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    time.sleep(diskspace.LOOK)  # an older look counts no longer, however fast this machine is
    return filler


@pytest.mark.root
def test_on_a_full_disk_new_jobs_are_refused_and_running_ones_end(directory: Path, small_disk: Path) -> None:
    daemon, witness = Daemon(directory), Witness(directory)
    daemon.state_dir = small_disk / "state"
    daemon.environment[diskspace.FLOOR_VARIABLE] = str(16 * MEBIBYTE)
    try:
        _start(daemon, 3)
        running = ["finishes", "fails", "cancelled"]
        daemon.call("job.enqueue", jobs=[witness.gated("finishes"), witness.gated("fails", exit_code=7, max_retries=1)])
        daemon.call("job.enqueue", jobs=[witness.gated("cancelled")])
        for job_id in running:
            witness.wait_begun(job_id)
        daemon.call("job.enqueue", jobs=[witness.job("waiting")])
        filler = _fill(small_disk)
        assert _kind(lambda: daemon.enqueue("true")) == "storage_full"
        daemon.call("job.cancel", ids=["cancelled"])
        daemon.wait_state("cancelled", "cancelled")
        witness.open_gate("finishes")
        daemon.wait_state("finishes", "completed")
        assert _kind(lambda: daemon.enqueue("true")) == "storage_full"
        assert daemon.job("waiting")["state"] == "pending", "nothing is started on a full disk"
        # Nor does a full disk keep a killed daemon from coming back.
        daemon.kill()
        witness.open_gate("fails")
        daemon.start()
        daemon.wait_state("fails", "dead")
        filler.unlink()
        daemon.wait_state("waiting", "completed")
        daemon.wait_state(daemon.enqueue("true", id="late"), "completed")
        jobs = jobs_of(daemon)
        assert jobs["fails"]["exit_code"] == 7
        assert {len(job["history"]) for job in jobs.values()} == {1}
        check_counts(daemon)
        witness.check()
        wait_for((daemon.state_dir / "reserve").exists, "the room for the next time to be kept again")
        assert daemon.stop() == 0
        check_left(daemon)
    finally:
        daemon.clean_up()


@pytest.mark.root
def test_a_start_on_a_full_disk_says_what_to_do(directory: Path, small_disk: Path) -> None:
    daemon = Daemon(directory)
    daemon.state_dir = small_disk / "state"
    daemon.state_dir.mkdir(mode=0o700)
    filler = _fill(small_disk)
    try:
        daemon.spawn()
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE) == 1
        said = daemon.log.read_text()
        assert "Traceback" not in said
        assert "No space left on device" in said
        assert "free some disk space" in said
        filler.unlink()
        daemon.start()
        assert daemon.stop() == 0
        # A daemon that was there before has kept the room that it needs to start, and to tell of the queue.
        _fill(small_disk)
        daemon.start()
        assert _kind(lambda: daemon.enqueue("true")) == "storage_full"
        assert daemon.stop() == 0
    finally:
        daemon.clean_up()


# --- a damaged database -----------------------------------------------------------------------------------------------


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2 // 4096 * 4096]


def _newer(content: bytes) -> bytes:
    return content[:60] + (10_000).to_bytes(4, "big") + content[64:]


UNUSABLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _content: b"", "is empty"),
    "zeros": (lambda content: bytes(len(content)), "begins with zeros"),
    "noise": (lambda content: random.Random(1).randbytes(len(content)), "damaged"),
    "text": (lambda _content: b"I am no database\n", "no database"),
    "half": (_half, "damaged"),
    "a few bytes": (lambda content: content[:50], "damaged"),
    "newer": (_newer, "newer"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_database_that_can_not_be_used_is_refused_and_left_alone(daemon: Daemon, fault: str) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "true"}] * 300)
    assert daemon.stop() == 0
    spoil, words = UNUSABLE[fault]
    database = daemon.state_dir / "queue.db"
    database.write_bytes(spoil(database.read_bytes()))
    before = {path: path.read_bytes() for path in daemon.state_dir.rglob("*") if path.is_file()}
    daemon.log.write_text("")
    daemon.spawn("--workers", "1")
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE) == 1
    after = {path: path.read_bytes() for path in daemon.state_dir.rglob("*") if path.is_file()}
    # Who holds the lock writes a PID into it, and SQLite has its side files to look at the database with.
    for path, content in before.items():
        assert path.name == "daemon.lock" or after[path] == content
    assert {path.name for path in after.keys() - before.keys()} <= {"queue.db-shm", "queue.db-wal"}
    assert not after.get(daemon.state_dir / "queue.db-wal")
    said = daemon.log.read_text()
    assert str(database) in said
    assert words in said
    assert "backup" in said or "that version" in said or "another state directory" in said, "it says what to do"
    assert "Traceback" not in said


def test_damage_is_found_after_an_unclean_stop(daemon: Daemon) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "true", "delay": 3600}] * 900)
    assert daemon.stop() == 0
    database = daemon.state_dir / "queue.db"
    content = bytearray(database.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = random.Random(2).randbytes(4096)
    database.write_bytes(content)
    # After a clean stop nothing is looked for: at a million jobs that would take its time.
    daemon.start()
    daemon.kill()
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE) == 1
    said = daemon.log.read_text()
    assert "the last stop was not clean; checking the database" in said
    assert "damaged" in said
    assert "Traceback" not in said


def test_a_check_that_ran_out_of_time_has_not_found_that_all_is_well(daemon: Daemon) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "true", "delay": 3600}] * 900)
    daemon.kill()
    daemon.environment[INTEGRITY_VARIABLE] = "0"
    daemon.start()
    wait_for(lambda: "not checked to its end" in daemon.log.read_text(), "the check to be given up")
    assert "no damage" not in daemon.log.read_text()
    daemon.kill()
    del daemon.environment[INTEGRITY_VARIABLE]
    daemon.start()
    wait_for(lambda: "no damage found" in daemon.log.read_text(), "the next one to look again")


# --- copies, and the write-ahead log ----------------------------------------------------------------------------------


class Load:
    """Clients that enqueue all the time; what was acknowledged."""

    def __init__(self, daemon: Daemon, clients: int = 2, **fields: Any) -> None:
        self.acknowledged: list[str] = []
        self._daemon = daemon
        self._fields = {"command": "true", **fields}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def _run(self, number: int) -> None:
        with self._daemon.wire() as wire:
            count = 0
            while not self._over.is_set():
                ids = [f"load-{number}-{count}-{part}" for part in range(5)]
                wire.call("job.enqueue", jobs=[{"id": job_id, **self._fields} for job_id in ids])
                self.acknowledged += ids
                count += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def grow(self, count: int) -> None:
        """Wait until that many more were acknowledged."""
        wanted = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= wanted, "more jobs to be acknowledged")


def test_a_backup_under_load_is_consistent_and_a_daemon_goes_on_from_it(pool: Daemon, directory: Path) -> None:
    copies: list[tuple[Path, list[str]]] = []
    with Load(pool) as load:
        for number in range(3):
            load.grow(200)
            before = list(load.acknowledged)
            copy = directory / f"copy-{number}.db"
            answer = pool.call("server.backup", path=str(copy))
            assert answer["bytes"] == copy.stat().st_size
            copies.append((copy, before))
        assert _kind(lambda: pool.call("server.backup", path=str(copies[0][0]))) == "conflict"
    for copy, before in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
        connection = sqlite3.connect(f"file:{copy}?mode=ro", uri=True)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert set(before) <= {job_id for (job_id,) in connection.execute("SELECT id FROM jobs")}
        connection.close()
    copy, before = copies[1]
    home = directory / "restored"
    (home / "state").mkdir(parents=True)
    restored = Daemon(home)
    shutil.copy(copy, restored.state_dir / "queue.db")
    try:
        restored.start("--workers", "2")
        wait_for(lambda: set(restored.call("status.get")["counts"]) and _all_done(restored), "all jobs to be done")
        jobs = jobs_of(restored)
        assert set(before) <= set(jobs)
        assert {job["state"] for job in jobs.values()} == {"completed"}
        check_counts(restored)
        assert restored.stop() == 0
        check_left(restored)
    finally:
        restored.clean_up()


def _all_done(daemon: Daemon) -> bool:
    counts = daemon.call("status.get")["counts"]
    return not (counts["pending"] or counts["processing"] or counts["failed"])


def test_the_write_ahead_log_stays_bounded_under_load_with_readers(daemon: Daemon) -> None:
    log = daemon.state_dir / "queue.db-wal"
    over = threading.Event()
    peak = 0

    def read() -> None:
        with daemon.wire() as wire:
            while not over.is_set():
                wire.call("job.list", limit=1000)

    readers = [threading.Thread(target=read) for _ in range(3)]
    with Load(daemon, command="true " + "x" * 50_000, delay=3600) as load:
        for reader in readers:
            reader.start()
        # A long reader of somebody else's: meanwhile the log must grow, afterwards it must not stay so.
        foreign = sqlite3.connect(f"file:{daemon.state_dir / 'queue.db'}?mode=ro", uri=True, isolation_level=None)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM jobs").fetchall()
        load.grow(900)
        assert log.stat().st_size > 40 * MEBIBYTE
        foreign.execute("COMMIT")
        foreign.close()

        def is_cut_back() -> bool:
            load.grow(20)
            return log.stat().st_size <= 40 * MEBIBYTE

        wait_for(is_cut_back, "the log to be begun anew")
        for _ in range(30):
            load.grow(20)
            peak = max(peak, log.stat().st_size)
        over.set()
    for reader in readers:
        reader.join()
    assert peak <= 40 * MEBIBYTE
