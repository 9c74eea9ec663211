"""A reload happens wholly or not at all: the installed program is checked as a whole before the running one lets go."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from queuectld.store.sqlite.migrations import MIGRATIONS
from tests.harness import PATIENCE, ROOT, Daemon, processes_with, wait_for

NEWEST = MIGRATIONS[-1].number


@pytest.fixture
def installed(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Not started yet; its program is a copy that can be changed, in `code`."""
    daemon = make_daemon("--workers", "1")
    code = daemon.directory / "code"
    for package in ("queuectld", "protocol/queuectl_protocol"):
        shutil.copytree(ROOT / package, code / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    daemon.environment["PYTHONPATH"] = str(code)
    daemon.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return daemon


def append(daemon: Daemon, module: str, text: str) -> None:
    with (daemon.directory / "code" / module).open("a") as file:
        file.write(text)


def start_with_config(daemon: Daemon, **extra: str) -> Path:
    """As `queuectld --config FILE`: state directory and socket are in the file."""
    config = daemon.directory / "config.toml"
    write_config(config, state_dir=str(daemon.state_dir), socket=str(daemon.socket), **extra)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "queuectld", "--config", str(config), "--workers", "1"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.environment, cwd="/",
        )  # fmt: skip
    daemon.wait_ready()
    return config


def write_config(path: Path, **values: str) -> None:
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))


def refused_reload(daemon: Daemon) -> str:
    """What `queuectl daemon reload` says; and the daemon works on as it is, its running job too."""
    gate = daemon.directory / "gate"
    job = daemon.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    daemon.worker_of(job)
    done = daemon.queuectl("daemon", "reload", check=False, environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}"})
    assert done.returncode == 1
    assert "the daemon goes on as it is: " in done.stderr
    reason = done.stderr.split("goes on as it is: ")[1].strip()
    assert reason.splitlines()[0] in daemon.log.read_text()
    assert daemon.call("server.info")["generation"] == 0
    gate.touch()
    assert daemon.wait_state(job, "dead")["exit_code"] == 7
    return reason


def test_an_unknown_key_in_the_config_file(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    config = start_with_config(daemon)
    with config.open("a") as file:
        file.write('colour = "red"\n')
    assert "unknown key 'colour'" in refused_reload(daemon)


@pytest.mark.parametrize("key", ["state_dir", "socket"])
def test_what_can_not_change_in_place(make_daemon: Callable[..., Daemon], key: str) -> None:
    daemon = make_daemon()
    config = start_with_config(daemon)
    values = {"state_dir": str(daemon.state_dir), "socket": str(daemon.socket)}
    write_config(config, **{**values, key: str(daemon.directory / "elsewhere")})
    reason = refused_reload(daemon)
    assert f"from {values[key]} to {daemon.directory / 'elsewhere'}" in reason
    write_config(config, **values, log_level="debug")
    assert daemon.queuectl("daemon", "reload").stdout.startswith(f"Reloaded: PID {daemon.pid}")


def test_the_sockets_group_changes_in_place(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    config = start_with_config(daemon)
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
    values = {"state_dir": str(daemon.state_dir), "socket": str(daemon.socket)}
    for extra, mode in (({"socket_group": str(os.getegid())}, 0o660), ({}, 0o600)):
        write_config(config, **values, **extra)
        daemon.queuectl("daemon", "reload")
        assert daemon.socket.stat().st_mode & 0o777 == mode


def test_a_module_that_can_not_be_imported(installed: Daemon) -> None:
    """One that the daemon itself does not import: only its workers would fail."""
    installed.start()
    installed.wait_workers(1)
    append(installed, "queuectld/worker/main.py", "\nraise RuntimeError('broken upgrade')\n")
    assert "broken upgrade" in refused_reload(installed)


def test_a_migration_that_fails(installed: Daemon) -> None:
    installed.start()
    append(
        installed, "queuectld/store/sqlite/migrations.py",
        f"\nMIGRATIONS = (*MIGRATIONS, Migration({NEWEST + 1}, ('CREATE TABLE jobs (x)',)))\n",
    )  # fmt: skip
    assert "table jobs already exists" in refused_reload(installed)
    left = sorted(path.name for path in installed.state_dir.iterdir())
    assert not [name for name in left if name.startswith(".check") or "before" in name]


def test_a_migration_that_works(installed: Daemon) -> None:
    gate = installed.directory / "gate"
    installed.start()
    job = installed.enqueue(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    installed.worker_of(job)
    append(
        installed, "queuectld/store/sqlite/migrations.py",
        f"\nMIGRATIONS = (*MIGRATIONS, Migration({NEWEST + 1}, ('CREATE TABLE colours (x)',)))\n",
    )  # fmt: skip
    installed.queuectl("daemon", "reload", environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}"})
    assert (installed.state_dir / f"queue.db.before-{NEWEST + 1}").exists()
    with closing(sqlite3.connect(f"file:{installed.state_dir / 'queue.db'}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT count(*) FROM colours").fetchall() == [(0,)]
    gate.touch()
    assert installed.wait_state(job, "dead")["exit_code"] == 7


def test_a_stop_does_not_wait_for_a_check(installed: Daemon) -> None:
    installed.start()
    append(installed, "queuectld/worker/launch.py", "\nimport time\ntime.sleep(1000)\n")
    os.kill(installed.pid, signal.SIGHUP)

    def checks() -> list[int]:
        found = processes_with(str(installed.directory))
        return [pid for pid in found if b"--check" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    wait_for(checks, "the check to begin")
    assert installed.stop() == 0
    wait_for(lambda: not checks(), "the check to be ended")


def test_a_lock_that_was_removed_is_there_again(pool: Daemon) -> None:
    lock = pool.state_dir / "daemon.lock"
    lock.unlink()
    pool.queuectl("daemon", "reload")
    assert lock.read_text() == f"{pool.pid}\n"


def test_no_other_daemon_can_hold_the_directory_at_any_moment_of_a_reload(pool: Daemon) -> None:
    script = """
import fcntl, os, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
print("tries", flush=True)
while True:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        continue
    sys.exit("held it")
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, pool.state_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(5):
            pool.queuectl("daemon", "reload")
        assert other.poll() is None
        other.kill()


def test_without_its_state_directory_a_daemon_stays_as_it_is(pool: Daemon) -> None:
    shutil.rmtree(pool.state_dir)
    os.kill(pool.pid, signal.SIGHUP)
    reason = "the state directory that this daemon serves is gone"
    wait_for(lambda: f"not re-executed: {reason}" in pool.log.read_text(), "the reload to be refused")
    assert pool.call("server.info")["reload_refusal"] == reason


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_fault_that_ends_a_part_of_the_daemon_is_in_its_log_at_once(installed: Daemon) -> None:
    append(
        installed,
        "queuectld/queue/setback.py",
        "\nasync def follow(*_: object) -> None:\n    raise KeyError('a fault')\n",
    )
    installed.start()
    wait_for(lambda: "KeyError: 'a fault'" in installed.log.read_text(), "the fault in the log")
    job = installed.enqueue("true")
    installed.wait_state(job, "completed")


def queuectld(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "queuectld", *arguments],
        env=daemon.environment, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd="/",
    )  # fmt: skip


def test_a_person_checks_a_configuration_and_disturbs_nobody(pool: Daemon, directory: Path) -> None:
    config = directory / "config.toml"
    write_config(config, state_dir=str(pool.state_dir), socket=str(directory / "elsewhere"))
    done = queuectld(pool, "--config", str(config), "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith(f"note: a daemon that runs already listens on {pool.socket}")
    assert done.stdout.splitlines()[-1].endswith(": ok")
    pool.wait_state(pool.enqueue("true"), "completed")
    write_config(config, state_dir=str(pool.state_dir), colour="red")
    for option in ("--check", "--version"):
        done = queuectld(pool, "--config", str(config), option)
        assert (done.returncode, done.stdout) == (2, "")
        assert "unknown key 'colour'" in done.stderr


def test_a_check_of_what_is_not_there_yet_makes_nothing(daemon: Daemon, directory: Path) -> None:
    done = queuectld(daemon, "--state-dir", str(directory / "new"), "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (directory / "new").exists()


def test_a_check_of_a_damaged_database(daemon: Daemon, directory: Path) -> None:
    (directory / "new").mkdir()
    (directory / "new" / "queue.db").write_bytes(bytes(4096))
    done = queuectld(daemon, "--state-dir", str(directory / "new"), "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert "begins with zeros" in done.stderr


def test_a_pool_of_workers_that_can_not_start_gets_smaller_too(installed: Daemon) -> None:
    append(installed, "queuectld/worker/main.py", "\nsys.exit(1)\n")
    installed.arguments = ("--workers", "3")
    installed.start()
    done = installed.queuectl("daemon", "start", "--workers", "1", check=False)
    assert done.stderr == ""
    assert installed.call("worker.list")["desired"] == 1
