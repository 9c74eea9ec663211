"""The database as a file: durable, private, bounded; refused and left alone where it can't be used."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from queuectl_protocol.jobs import JobState, Outcome
from queuectld.store.base import OutOfTime, StorageBusy, StorageError, StorageFailed, StorageFull, StorageUnusable
from queuectld.store.sqlite import SqliteStore, open_store
from queuectld.store.sqlite.backup import write_backup
from queuectld.store.sqlite.connection import Values
from queuectld.store.sqlite.errors import translate
from queuectld.store.sqlite.migrations import APPLICATION_ID, MIGRATIONS, Migration
from tests.store.jobs import NOW, bring, new_job, next_due, next_ready, put

REPOSITORY = Path(__file__).parents[2]


def pragma(store: SqliteStore, name: str) -> object:
    ((value,),) = store._db.rows(f"PRAGMA {name}")
    return value


class TestSettings:
    def test_a_commit_is_on_disk_when_it_returns(self, sqlite: SqliteStore) -> None:
        assert pragma(sqlite, "journal_mode") == "wal"
        assert pragma(sqlite, "synchronous") == 2  # FULL
        assert pragma(sqlite, "foreign_keys") == 1

    def test_the_file_says_whose_it_is(self, sqlite: SqliteStore) -> None:
        assert pragma(sqlite, "application_id") == APPLICATION_ID
        assert pragma(sqlite, "user_version") == MIGRATIONS[-1].number

    def test_a_reader_cannot_write(self, sqlite: SqliteStore) -> None:
        reader = sqlite.reader()
        with pytest.raises(StorageFailed):
            reader._db.run("DELETE FROM jobs")
        reader.close()

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_only_the_owner_can_read(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            store = open_store(tmp_path / "queue.db")
            put(store, new_job("a"))
            store.maintenance.backup(tmp_path / "copy.db")
        finally:
            os.umask(before)
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
        store.close()
        assert modes == dict.fromkeys(("queue.db", "queue.db-wal", "queue.db-shm", "copy.db"), "0o600")

    def test_nothing_else_is_left_beside_it(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        sqlite.close()
        assert [path.name for path in tmp_path.iterdir()] == ["queue.db"]
        open_store(tmp_path / "queue.db").close()

    @pytest.mark.parametrize("name", ["a b.db", "a?mode=ro.db", "a#b%41.db", "\N{SNOWMAN}.db"])
    def test_any_name_will_do(self, tmp_path: Path, name: str) -> None:
        store = open_store(tmp_path / name)
        put(store, new_job("a"))
        reader = store.reader()
        assert reader.counts()[JobState.PENDING] == 1
        reader.close()
        store.close()
        assert [path.name for path in tmp_path.iterdir()] == [name]


class TestEnvironments:
    def stored(self, store: SqliteStore) -> int:
        ((count,),) = store._db.rows("SELECT count(*) FROM environments")
        return int(count)

    def test_equal_ones_are_stored_once(self, sqlite: SqliteStore) -> None:
        one, other = {"A": "1", "B": "2"}, {"A": "1"}
        put(sqlite, new_job("a", env=one), new_job("b", env={"B": "2", "A": "1"}), new_job("c", env=other))
        put(sqlite, new_job("d", env=one), new_job("e"), new_job("f", env={}))
        assert self.stored(sqlite) == 3

    def test_unused_ones_go(self, sqlite: SqliteStore) -> None:
        shared = {"A": "1"}
        a, b, c = put(sqlite, new_job("a", env=shared), new_job("b", env=shared), new_job("c", env={}))
        for doomed, left in (([a], 2), ([c], 1), ([b], 0)):
            sqlite.begin()
            sqlite.delete(doomed)
            sqlite.commit()
            assert self.stored(sqlite) == left

    def test_one_that_comes_and_goes_in_an_undone_part(self, sqlite: SqliteStore) -> None:
        sqlite.begin()
        sqlite.mark()
        sqlite.insert([new_job("a", env={"A": "1"})], NOW)
        sqlite.undo()
        sqlite.mark()
        sqlite.insert([new_job("b", env={"A": "1"})], NOW)
        sqlite.keep()
        sqlite.commit()
        assert self.stored(sqlite) == 1
        ready = next_ready(sqlite, NOW)
        assert ready is not None
        assert ready.env == {"A": "1"}


class TestReopen:
    def test_all_is_there_again(self, tmp_path: Path) -> None:
        store = open_store(tmp_path / "queue.db")
        numbers = put(store, *(new_job(f"j{i}", env={"A": "1"}) for i in range(6)))
        for number, state in zip(numbers, JobState, strict=True):
            bring(store, number, state)
        store.begin()
        store.set_desired_workers(3)
        store.set_setting("backoff_base", 4.0)
        store.commit()
        before = (store.counts(), store.jobs(None, None, 10, None), store.running(), store.last_seen_time())
        store.close()
        store = open_store(tmp_path / "queue.db")
        assert (store.counts(), store.jobs(None, None, 10, None), store.running(), store.last_seen_time()) == before
        assert (store.desired_workers(), store.settings()) == (3, {"backoff_base": 4.0})
        store.close()

    def test_what_was_not_committed_is_gone(self, tmp_path: Path) -> None:
        store = open_store(tmp_path / "queue.db")
        put(store, new_job("a"))
        store.begin()
        store.insert([new_job("b")], NOW + 1)
        store.close()
        store = open_store(tmp_path / "queue.db")
        assert store.counts()[JobState.PENDING] == 1
        assert store.last_seen_time() == NOW
        store.close()

    def test_after_sigkill_every_acknowledged_job_is_there(self, tmp_path: Path) -> None:
        program = """
import sys
from pathlib import Path
from queuectld.store.sqlite import open_store
from tests.store.jobs import new_job, put
store = open_store(Path(sys.argv[1]))
for i in range(1_000_000):
    put(store, new_job(f"j{i}"))
    print(i, flush=True)
"""
        path = tmp_path / "queue.db"
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert process.stdout is not None
        acknowledged = 0
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged == 50:
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        assert (tmp_path / "queue.db-wal").stat().st_size > 0
        store = open_store(path)
        assert acknowledged >= 50
        assert store.counts()[JobState.PENDING] in (acknowledged + 1, acknowledged + 2)
        assert store.resolve(f"j{acknowledged}") == [(acknowledged + 1, f"j{acknowledged}")]
        assert store.maintenance.integrity_check() == []
        store.close()

    def test_a_creation_that_was_killed_is_begun_anew(self, tmp_path: Path) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            (tmp_path / f".queue.db.new{suffix}").write_bytes(b"half made")
        store = open_store(tmp_path / "queue.db")
        put(store, new_job("a"))
        store.close()
        assert [path.name for path in tmp_path.iterdir()] == ["queue.db"]

    def test_killed_at_any_moment_of_the_creation(self, tmp_path: Path) -> None:
        """Each system call that changes a file name is a moment; SIGKILL at each of them, then open again."""
        program = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv[2])
def audit(event, args):
    global left
    if event in ("open", "os.rename", "os.remove", "sqlite3.connect") and ".new" in str(args[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
from queuectld.store.sqlite import open_store
open_store(Path(sys.argv[1])).close()
"""
        for moment in range(1, 20):
            path = tmp_path / str(moment) / "queue.db"
            path.parent.mkdir()
            done = subprocess.run(
                [sys.executable, "-c", program, str(path), str(moment)], cwd=REPOSITORY, check=False
            ).returncode
            store = open_store(path)
            put(store, new_job("a"))
            store.close()
            assert [found.name for found in path.parent.iterdir()] == ["queue.db"]
            if done == 0:
                break
            assert done == -signal.SIGKILL
        else:
            pytest.fail("the creation never got to its end")
        assert moment > 3


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zero_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def tiny(path: Path) -> None:
    os.truncate(path, 40)


def text(path: Path) -> None:
    path.write_text("this is not a database\n" * 1000)


def garbage_behind_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3000)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA user_version = 9999")


def no_version(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA user_version = 0")


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")


class TestUnusable:
    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (zeros, "begins with zeros"),
            (zero_header, "begins with zeros"),
            (empty, "is empty"),
            (truncated, "damaged"),
            (tiny, "damaged"),
            (text, "damaged, or no database"),
            (garbage_behind_the_header, "damaged"),
            (newer, "newer queuectl"),
            (no_version, "has no version"),
            (of_another_program, "another program"),
        ],
    )
    def test_refused_and_left_alone(self, tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
        path = tmp_path / "queue.db"
        store = open_store(path)
        put(store, *(new_job(f"j{i}") for i in range(100)))
        store.close()
        damage(path)
        before = path.read_bytes()
        for _ in range(2):
            with pytest.raises(StorageUnusable, match=says) as caught:
                open_store(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
            assert path.read_bytes() == before
        assert "queue.db" in [found.name for found in tmp_path.iterdir()]
        assert not list(tmp_path.glob("*before*"))

    def test_a_newer_one_whose_owner_was_killed(self, tmp_path: Path) -> None:
        """Its version is only in the write-ahead log, which must stay as well."""
        store = open_store(tmp_path / "queue.db")
        store._db.run("PRAGMA user_version = 9999")
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("queue.db", "queue.db-wal"):
            shutil.copy(tmp_path / name, copy / name)
        store.close()
        before = [(copy / name).read_bytes() for name in ("queue.db", "queue.db-wal")]
        with pytest.raises(StorageUnusable, match="newer queuectl"):
            open_store(copy / "queue.db")
        assert [(copy / name).read_bytes() for name in ("queue.db", "queue.db-wal")] == before

    def test_a_log_without_its_database(self, tmp_path: Path) -> None:
        log = tmp_path / "queue.db-wal"
        log.write_bytes(b"some jobs")
        with pytest.raises(StorageUnusable, match="is gone"):
            open_store(tmp_path / "queue.db")
        assert log.read_bytes() == b"some jobs"
        assert [path.name for path in tmp_path.iterdir()] == ["queue.db-wal"]

    def test_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "queue.db").mkdir()
        with pytest.raises(StorageUnusable, match="is not a file"):
            open_store(tmp_path / "queue.db")

    def test_a_link_to_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "queue.db").symlink_to(tmp_path / "gone")
        with pytest.raises(StorageUnusable, match="No such file"):
            open_store(tmp_path / "queue.db")
        assert not (tmp_path / "gone").exists()

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StorageUnusable, match="is not there"):
            open_store(tmp_path / "gone" / "queue.db")

    @pytest.mark.parametrize("what", ["file", "directory", "unreadable"])
    def test_not_writable(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "queue.db"
        store = open_store(path)
        put(store, new_job("a"))
        store.close()
        {
            "file": lambda: path.chmod(0o400),
            "directory": lambda: tmp_path.chmod(0o500),
            "unreadable": lambda: path.chmod(0o000),
        }[what]()
        try:
            message = self._open_without_privileges(path)
        finally:
            tmp_path.chmod(0o700)
        assert "writable for this user" in message
        assert [found.name for found in tmp_path.iterdir()] == ["queue.db"]

    def _open_without_privileges(self, path: Path) -> str:
        """The refusal. Root, to whom every file is open, gives its capabilities up in a process of its own."""
        program = """
import ctypes, sys
from pathlib import Path
from queuectld.store.base import StorageUnusable
from queuectld.store.sqlite import open_store
header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capset(2): version 3, this process
assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
try:
    open_store(Path(sys.argv[1]))
except StorageUnusable as refusal:
    print(refusal)
"""
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        return done.stdout

    def test_no_room_to_make_one(self, tmp_path: Path) -> None:
        too_big = ("PRAGMA max_page_count = 40", "CREATE TABLE big (x)", "INSERT INTO big VALUES (zeroblob(1000000))")
        with pytest.raises(StorageFull):
            open_store(tmp_path / "queue.db", [*MIGRATIONS[:1], Migration(2, too_big)])
        assert not (tmp_path / "queue.db").exists()
        open_store(tmp_path / "queue.db").close()


NEWEST = len(MIGRATIONS)
NEXT = Migration(
    NEWEST + 1, ("ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'", "CREATE TABLE tags (name TEXT)")
)
AFTER = Migration(NEWEST + 2, ("DROP TABLE tags",))
BROKEN = Migration(NEWEST + 1, (*NEXT.statements, "INSERT INTO nowhere VALUES (1)"))
UNFAITHFUL = Migration(NEWEST + 1, ("DELETE FROM jobs",))


class TestMigrations:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "queue.db"
        store = open_store(path)
        (number,) = put(store, new_job("a"))
        bring(store, number, JobState.PROCESSING)
        store.close()
        return path

    def test_they_are_numbered_from_one(self) -> None:
        assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))

    def test_a_new_database_gets_all_at_once(self, tmp_path: Path) -> None:
        store = open_store(tmp_path / "queue.db", [*MIGRATIONS, NEXT, AFTER])
        assert pragma(store, "user_version") == NEWEST + 2
        store.close()
        assert [found.name for found in tmp_path.iterdir()] == ["queue.db"]

    def test_an_old_one_is_backed_up_and_brought_up(self, path: Path) -> None:
        store = open_store(path, [*MIGRATIONS, NEXT, AFTER])
        assert pragma(store, "user_version") == NEWEST + 2
        assert pragma(store, "foreign_keys") == 1
        assert store._db.rows("SELECT id, colour FROM jobs") == [("a", "red")]
        assert [running.job.id for running in store.running()] == ["a"]
        put(store, new_job("b"))
        store.close()
        assert sorted(found.name for found in path.parent.iterdir()) == ["queue.db", f"queue.db.before-{NEWEST + 1}"]
        old = open_store(path.with_name(f"queue.db.before-{NEWEST + 1}"))
        assert pragma(old, "user_version") == NEWEST
        assert [job.id for job in old.jobs(None, None, 10, None)[0]] == ["a"]
        old.close()

    def test_only_what_is_missing_is_applied(self, path: Path) -> None:
        open_store(path, [*MIGRATIONS, NEXT]).close()
        store = open_store(path, [*MIGRATIONS, NEXT, AFTER])
        assert pragma(store, "user_version") == NEWEST + 2
        store.close()
        assert path.with_name(f"queue.db.before-{NEWEST + 2}").exists()

    def test_the_older_program_refuses_the_newer_database(self, path: Path) -> None:
        open_store(path, [*MIGRATIONS, NEXT]).close()
        before = path.read_bytes()
        with pytest.raises(StorageUnusable, match=rf"newer queuectld \(schema {NEWEST + 1}, this one knows {NEWEST}\)"):
            open_store(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("bad", [BROKEN, UNFAITHFUL], ids=["broken", "unfaithful"])
    def test_one_that_fails_changes_nothing(self, path: Path, bad: Migration) -> None:
        with pytest.raises(StorageUnusable):
            open_store(path, [*MIGRATIONS, bad])
        store = open_store(path)
        assert pragma(store, "user_version") == NEWEST
        assert store._db.rows("SELECT name FROM sqlite_master WHERE name = 'tags'") == []
        assert [job.id for job in store.jobs(None, None, 10, None)[0]] == ["a"]
        store.close()

    def test_no_backup_no_migration(self, path: Path) -> None:
        path.with_name(f"queue.db.before-{NEWEST + 1}").mkdir()
        with pytest.raises(StorageError, match="can't write the copy"):
            open_store(path, [*MIGRATIONS, NEXT])
        store = open_store(path)
        assert pragma(store, "user_version") == NEWEST
        store.close()


OLD = sorted((Path(__file__).parent / "old").glob("version-*.sql"))


class TestOldDatabases:
    """One as each version left it, jobs in every state."""

    def test_there_is_one_of_each_version(self) -> None:
        assert [path.name for path in OLD] == [f"version-{migration.number}.sql" for migration in MIGRATIONS]

    @pytest.mark.parametrize("dump", OLD, ids=lambda dump: dump.stem)
    def test_it_opens_with_all_that_was_in_it(self, tmp_path: Path, dump: Path) -> None:
        path = tmp_path / "queue.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.executescript(dump.read_text())
        store = open_store(path)
        assert store.maintenance.integrity_check() == []
        assert store.counts() == {**dict.fromkeys(JobState, 1), JobState.PENDING: 2}
        for state in JobState:
            assert f"{state}-1" in [job.id for job in store.jobs(state, None, 10, None)[0]]
        ((number, _),) = store.resolve("failed-1")
        job = store.job(number, env=True)
        assert job is not None
        assert (job.argv, job.cwd) == (["printf", "%s\n", "it's \N{SNOWMAN}"], "/tmp")
        assert job.env == {"HOME": "/root", "LANG": "C.UTF-8"}
        assert isinstance(job.history, list)
        assert [(attempt.outcome, attempt.exit_code) for attempt in job.history] == [(Outcome.FAILED, 1)]
        assert [(running.job.id, running.token) for running in store.running()] == [("processing-1", "token")]
        store.begin()
        for waiting in ("pending-1", "failed-1"):
            ready = next_ready(store, NOW)
            assert ready is not None
            assert ready.id == waiting
            store.start_attempt(ready.number, ready.last_attempt + 1, "token", "w1", NOW)
        assert next_due(store, NOW) == NOW + 60
        store.rollback()
        assert store.settings() == {"backoff_base": 1.5, "max_retries": 5}
        assert (store.desired_workers(), store.last_seen_time()) == (2, NOW)
        assert [worker.id for worker in store.workers()] == ["w1"]
        assert put(store, new_job("new")) == [9]  # 8 was deleted, and is not used again
        store.close()

    def test_a_new_database_is_like_one_that_was_brought_up(self, tmp_path: Path) -> None:
        """So a released migration was not changed, and nothing depends on where a database began."""
        with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as raw:
            raw.executescript(OLD[0].read_text())
        schemas = []
        for name in ("old.db", "new.db"):
            store = open_store(tmp_path / name)
            schemas.append(store._db.rows("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"))
            store.close()
        assert schemas[0] == schemas[1]


class TestBackup:
    def test_of_what_is_committed_while_more_is_written(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        put(sqlite, *(new_job(f"j{i}") for i in range(50)))
        sqlite.begin()
        sqlite.insert([new_job("open")], NOW)
        sqlite.maintenance.backup(tmp_path / "copy.db")
        sqlite.commit()
        put(sqlite, new_job("later"))
        copy = open_store(tmp_path / "copy.db")
        assert copy.counts()[JobState.PENDING] == 50
        assert copy.maintenance.integrity_check() == []
        put(copy, new_job("of its own"))
        copy.close()
        assert sqlite.counts()[JobState.PENDING] == 52

    def test_a_busy_writer_does_not_keep_it_from_its_end(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        put(sqlite, *(new_job(f"j{i}") for i in range(2000)))
        stop, failed = threading.Event(), []

        def write() -> None:
            i = 0
            try:
                while not stop.is_set():
                    put(sqlite, new_job(f"w{i}"))
                    i += 1
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for i in range(10):
                sqlite.maintenance.backup(tmp_path / f"copy{i}.db")
        finally:
            stop.set()
            writer.join()
        assert failed == []
        for i in range(10):
            copy = open_store(tmp_path / f"copy{i}.db")
            assert copy.maintenance.integrity_check() == []
            assert copy.counts()[JobState.PENDING] == len(copy.in_state(JobState.PENDING, 10**6))
            copy.close()

    @pytest.mark.parametrize("replace", [False, True])
    def test_never_over_the_database_itself(self, sqlite: SqliteStore, tmp_path: Path, *, replace: bool) -> None:
        put(sqlite, new_job("a"))
        (tmp_path / "link").symlink_to(tmp_path)
        for target in ("queue.db", "queue.db-wal", "queue.db-shm", "link/queue.db"):
            with pytest.raises(StorageError, match="is the database itself" if replace else "is there already"):
                write_backup(tmp_path / "queue.db", tmp_path / target, replace=replace)
        assert sqlite.maintenance.integrity_check() == []

    def test_never_over_another_database_in_use(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        other = open_store(tmp_path / "other.db")
        put(other, new_job("b"))
        with pytest.raises(StorageError, match="in use"):
            write_backup(tmp_path / "queue.db", tmp_path / "other.db", replace=True)
        other.close()
        (tmp_path / "gone.db-wal").touch()
        with pytest.raises(StorageError, match="in use"):
            sqlite.maintenance.backup(tmp_path / "gone.db")

    def test_a_failed_one_leaves_the_old_one(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        put(sqlite, new_job("a"))
        directory = tmp_path / "backups"
        (directory / "copy.db").mkdir(parents=True)
        with pytest.raises(StorageError, match="can't write the copy"):
            write_backup(tmp_path / "queue.db", directory / "copy.db", replace=True)
        assert [path.name for path in directory.iterdir()] == ["copy.db"]

    def test_what_nobody_writes_any_more_is_removed_and_nothing_else(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        put(sqlite, new_job("a"))
        directory = tmp_path / "backups"
        directory.mkdir()
        mine, left, written = (
            directory / name for name in (".copy.db.part", ".queuectl-backup-left.part", ".queuectl-backup-now.part")
        )
        for path in (mine, left, written):
            path.write_text("precious")
        with written.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            sqlite.maintenance.backup(directory / "copy.db")
        assert sorted(directory.iterdir()) == sorted([mine, written, directory / "copy.db"])
        assert mine.read_text() == "precious"

    def test_where_there_are_no_links_it_gets_its_name_all_the_same(
        self, sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*_arguments: object) -> None:
            raise PermissionError(errno.EPERM, "no links on this file system")

        monkeypatch.setattr(os, "link", none)
        put(sqlite, new_job("a"))
        sqlite.maintenance.backup(tmp_path / "copy.db")
        copy = open_store(tmp_path / "copy.db")
        assert copy.maintenance.integrity_check() == []
        copy.close()
        assert not list(tmp_path.glob("*.part"))


class TestSnapshots:
    """A commit that falls between the statements of one read: that read tells of the moment before, all through."""

    def test_a_job_and_its_history(self, sqlite: SqliteStore) -> None:
        (number,) = put(sqlite, new_job("a"))
        reader = sqlite.reader()
        came_between: list[str] = []

        def between(statement: str) -> None:
            if "FROM attempts" in statement and not came_between:
                came_between.append(statement)
                bring(sqlite, number, JobState.DEAD)

        reader._db._raw.set_trace_callback(between)
        job = reader.job(number)
        assert job is not None
        assert (job.state, job.history) == (JobState.PENDING, [])
        assert came_between
        job = reader.job(number)
        assert job is not None
        assert job.state is JobState.DEAD
        reader.close()

    def test_an_id_and_a_prefix(self, sqlite: SqliteStore) -> None:
        put(sqlite, new_job("ab"))
        reader = sqlite.reader()
        came_between: list[str] = []

        def between(statement: str) -> None:
            if "LIMIT 3" in statement and not came_between:
                came_between.append(statement)
                put(sqlite, new_job("a"))

        reader._db._raw.set_trace_callback(between)
        assert [job_id for _, job_id in reader.resolve("a")] == ["ab"]
        assert came_between
        assert [job_id for _, job_id in reader.resolve("a")] == ["a"]
        reader.close()


class TestBounds:
    def test_two_readers_while_it_is_written(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        """Every snapshot is of one moment, and the log does not grow with the number of commits."""
        stop, failed = threading.Event(), []

        def read() -> None:
            reader = sqlite.reader()
            try:
                while not stop.is_set():
                    reader.counts()
                    page, _ = reader.jobs(JobState.PENDING, None, 100, None)
                    for job in page[:3]:
                        ((number, _),) = reader.resolve(job.id)
                        whole = reader.job(number)
                        assert whole is not None
                        assert isinstance(whole.history, list)
                        running = [attempt for attempt in whole.history if attempt.ended_at is None]
                        assert len(running) == (whole.state is JobState.PROCESSING)
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)
            finally:
                reader.close()

        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in readers:
            thread.start()
        try:
            for i in range(300):
                (number, *_) = put(sqlite, *(new_job(f"{i}-{k}", label="x" * 200) for k in range(50)))
                bring(sqlite, number, JobState.PROCESSING)
        finally:
            stop.set()
            for thread in readers:
                thread.join()
        assert failed == []
        # 600 commits of some 20 pages each were written; without a checkpoint the log would be about 50 MiB. Where a
        # reader was held up in its snapshot, it was longer for a while, and is cut when it is begun anew.
        for k in range(3):
            put(sqlite, new_job(f"last{k}"))
        assert (tmp_path / "queue.db-wal").stat().st_size <= 32 * 1024 * 1024

    def test_a_log_that_grew_is_cut_back(self, sqlite: SqliteStore, tmp_path: Path) -> None:
        log = tmp_path / "queue.db-wal"
        holder = sqlite.reader()
        holder._db.run("BEGIN")
        holder.counts()
        i = 0
        while log.stat().st_size < 40 * 1024 * 1024:
            put(sqlite, *(new_job(f"{i}-{k}", label="x" * 200, command="y" * 20_000) for k in range(200)))
            i += 1
        holder._db.run("ROLLBACK")
        for k in range(3):
            put(sqlite, new_job(f"after{k}"))
        assert log.stat().st_size <= 32 * 1024 * 1024
        holder.close()


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (sqlite3.SQLITE_FULL, StorageFull),
            (sqlite3.SQLITE_IOERR, StorageFailed),
            (sqlite3.SQLITE_IOERR_FSYNC, StorageFailed),
            (sqlite3.SQLITE_IOERR_WRITE, StorageFailed),
            (sqlite3.SQLITE_IOERR_SHMSIZE, StorageFailed),
            (sqlite3.SQLITE_CORRUPT, StorageFailed),
            (sqlite3.SQLITE_NOTADB, StorageFailed),
            (sqlite3.SQLITE_BUSY, StorageBusy),
            (sqlite3.SQLITE_BUSY_TIMEOUT, StorageBusy),
            (sqlite3.SQLITE_READONLY, StorageFailed),
            (sqlite3.SQLITE_CONSTRAINT_UNIQUE, StorageFailed),
            (None, StorageFailed),
        ],
    )
    def test_translation(self, tmp_path: Path, code: int | None, expected: type[StorageError]) -> None:
        error = sqlite3.OperationalError("something")
        if code is not None:
            error.sqlite_errorcode = code
            error.sqlite_errorname = "SQLITE_SOMETHING"
        assert type(translate(error, tmp_path / "queue.db")) is expected
        assert list(tmp_path.iterdir()) == []

    def _fill(self, store: SqliteStore) -> None:
        """No page more may be added to the file."""
        ((pages,),) = store._db.rows("PRAGMA page_count")
        store._db.rows(f"PRAGMA max_page_count = {pages}")

    @pytest.mark.parametrize("env", [None, {"A": "x" * 1000}])
    def test_no_room_undoes_the_whole_transaction(self, sqlite: SqliteStore, env: dict[str, str] | None) -> None:
        (number,) = put(sqlite, new_job("a"))
        self._fill(sqlite)
        sqlite.begin()
        sqlite.mark()
        sqlite.start_attempt(number, 1, "t", "w", NOW + 1)
        sqlite.keep()
        sqlite.mark()
        with pytest.raises(StorageFull):
            sqlite.insert([new_job(f"j{i}", env=env, command="x" * 1000) for i in range(100)], NOW + 1)
        with pytest.raises(RuntimeError, match="outside of a transaction"):
            sqlite.set_setting("max_retries", 1)
        sqlite.undo()  # what a caller does after any error
        sqlite.rollback()
        assert sqlite.counts() == {**dict.fromkeys(JobState, 0), JobState.PENDING: 1}
        assert sqlite.running() == []
        assert sqlite.last_seen_time() == NOW
        sqlite._db.rows("PRAGMA max_page_count = 1000000")
        put(sqlite, new_job("b"))
        assert sqlite.counts()[JobState.PENDING] == 2
        assert sqlite.maintenance.integrity_check() == []

    def test_what_frees_nothing_but_needs_nothing_still_goes(self, sqlite: SqliteStore) -> None:
        (number,) = put(sqlite, new_job("a"))
        bring(sqlite, number, JobState.PROCESSING)
        self._fill(sqlite)
        sqlite.begin()
        sqlite.end_attempt(
            number,
            1,
            outcome=Outcome.COMPLETED,
            exit_code=0,
            signal=None,
            error=None,
            state=JobState.COMPLETED,
            attempts=1,
            run_at=NOW,
            ended_at=NOW,
            now=NOW,
        )
        sqlite.commit()
        assert sqlite.counts()[JobState.COMPLETED] == 1

    def test_after_a_failed_commit_nothing_is_begun(self, sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing:
            """A connection whose disk fails at COMMIT."""

            def __init__(self, raw: sqlite3.Connection) -> None:
                self._raw = raw

            def __getattr__(self, name: str) -> object:
                return getattr(self._raw, name)

            def execute(self, statement: str, *values: Values) -> sqlite3.Cursor:
                if statement == "COMMIT":
                    self._raw.execute("ROLLBACK")
                    error = sqlite3.OperationalError("disk I/O error")
                    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                    raise error
                return self._raw.execute(statement, *values)

        put(sqlite, new_job("a"))
        monkeypatch.setattr(sqlite._db, "_raw", Failing(sqlite._db._raw))
        sqlite.begin()
        sqlite.insert([new_job("b")], NOW)
        with pytest.raises(StorageFailed, match="the disk failed"):
            sqlite.commit()
        sqlite.rollback()
        with pytest.raises(StorageFailed, match="failed before"):
            sqlite.begin()

    def test_a_check_without_time_says_so(self, sqlite: SqliteStore) -> None:
        put(sqlite, *(new_job(f"j{i}") for i in range(1000)))
        with pytest.raises(OutOfTime):
            sqlite.maintenance.integrity_check(patience=0)
        assert sqlite.maintenance.integrity_check() == []

    def test_damage_is_found_and_told(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        store = open_store(path)
        put(store, *(new_job(f"j{i}", command="x" * 100) for i in range(2000)))
        store.close()
        whole = 30 * 4096  # the schema, and the roots of all tables: it can be opened
        with path.open("r+b") as file:
            file.seek(whole)
            file.write(b"\xa5" * (path.stat().st_size - whole))
        store = open_store(path)
        findings = store.maintenance.integrity_check()
        assert 0 < len(findings) <= 20
        with pytest.raises(StorageFailed, match="damaged"):
            list(map(store.job, range(1, 2001)))
        store.close()
