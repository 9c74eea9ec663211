"""From a released version to this one under running jobs: its daemon, its workers, its database, then this program."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from queuectld.store.sqlite.migrations import MIGRATIONS
from tests.harness import ROOT, Daemon, lines_of, wait_for

RELEASES = {"0.1.0": "aee6b31", "0.2.0": "ca996bc"}
"""Version and commit."""
NEWEST = MIGRATIONS[-1].number
"""The schema of this version."""
PACKAGES = ("queuectld", "queuectl_client", "protocol/queuectl_protocol")


@pytest.fixture(scope="session", params=RELEASES)
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages of a released version, as pip would install them."""
    commit = RELEASES[request.param]
    names = ("queuectld", "queuectl_client", "protocol")
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not there, so no released version can be had")
    archive = subprocess.run(
        [git, "archive", "--format=zip", commit, *names], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.skip(f"commit {commit} (version {request.param}) is not there: {archive.stderr.decode().strip()}")
    directory = tmp_path_factory.mktemp("released")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as content:
        content.extractall(directory)
    for package in PACKAGES:  # version 0.1.0 has a package `protocol` instead of the last one
        if (directory / package).exists():
            (directory / package).rename(directory / Path(package).name)
    return directory


@pytest.fixture
def old(make_daemon: Callable[..., Daemon], released: Path) -> Daemon:
    """A daemon of the released version, with one worker; what is installed can be exchanged."""
    daemon = make_daemon("--workers", "1")
    site = daemon.directory / "site"
    new = daemon.directory / "new"
    new.mkdir()
    for package in PACKAGES:
        (new / Path(package).name).symlink_to(ROOT / package)
    site.symlink_to(released)
    daemon.environment["PYTHONPATH"] = str(site)
    daemon.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return daemon.start()


def install(daemon: Daemon) -> None:
    """Exchange the released version by this one, as at one moment."""
    fresh = daemon.directory / "fresh"
    fresh.symlink_to(daemon.directory / "new")
    fresh.rename(daemon.directory / "site")


def reload(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the new version")
    assert daemon.call("server.info")["reloads_refused"] == 0, "this is not the new version"


def gated_job(daemon: Daemon) -> tuple[str, Path, Path]:
    """A job that runs until its gate is there, and then exits with 7; and a file with a line for each start of it."""
    gate, ran = daemon.directory / "gate", daemon.directory / "ran"
    job = daemon.enqueue(f"echo >> {ran}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 7", max_retries=1)
    wait_for(lambda: lines_of(ran), "the job to run")
    daemon.worker_of(job)
    return job, gate, ran


def ended_once(daemon: Daemon, job: str, ran: Path) -> None:
    ended = daemon.wait_state(job, "dead", "failed", "completed")
    assert (ended["state"], ended["exit_code"], ended["attempts"]) == ("dead", 7, 1)
    assert len(lines_of(ran)) == 1


def test_in_place_under_a_running_job(old: Daemon) -> None:
    job, gate, ran = gated_job(old)
    (worker,) = old.wait_workers(1, "busy")
    waiting = [old.enqueue("echo waited") for _ in range(3)]
    install(old)
    reload(old)
    assert old.wait_workers(1, "busy")[0]["pid"] == worker["pid"]
    gate.touch()
    ended_once(old, job, ran)
    for one in waiting:
        old.wait_state(one, "completed")
    (worker,) = old.wait_workers(1)
    os.kill(worker["pid"], signal.SIGKILL)  # the next one is of this version
    old.wait_state(old.enqueue("true"), "completed")
    assert old.stop() == 0


def test_its_database_is_copied_before_it_is_migrated(old: Daemon) -> None:
    path = old.state_dir / "queue.db"
    with closing(sqlite3.connect(path)) as database:
        (schema,) = database.execute("PRAGMA user_version").fetchone()
    install(old)
    reload(old)
    copies = {number: path.with_name(f"queue.db.before-{number}") for number in range(1, NEWEST + 1)}
    assert [number for number, copy in copies.items() if copy.exists()] == ([schema + 1] if schema < NEWEST else [])


def test_a_worker_of_the_new_version_serves_the_old_daemon(old: Daemon) -> None:
    """One that is replaced between the installation and the reload."""
    (worker,) = old.wait_workers(1)
    install(old)
    os.kill(worker["pid"], signal.SIGKILL)
    # Not before: a job that is leased to the dead one has its only attempt lost.
    wait_for(lambda: old.wait_workers(1)[0]["pid"] != worker["pid"], "a worker of the new version")
    job, gate, ran = gated_job(old)
    reload(old)
    old.wait_workers(1, "busy")
    gate.touch()
    ended_once(old, job, ran)


def test_the_old_daemon_is_killed_and_the_new_one_started(old: Daemon) -> None:
    job, gate, ran = gated_job(old)
    waiting = old.enqueue("echo waited")
    old.kill()
    install(old)
    old.start()
    old.wait_workers(1, "busy")
    gate.touch()
    ended_once(old, job, ran)
    old.wait_state(waiting, "completed")


def test_a_job_that_ended_while_no_daemon_ran(old: Daemon) -> None:
    job, gate, ran = gated_job(old)
    old.kill()
    gate.touch()
    record = old.state_dir / "exits" / "1.1.json"
    wait_for(record.exists, "the old worker's exit record")
    install(old)
    old.start()
    ended_once(old, job, ran)
    wait_for(lambda: not record.exists(), "the record to be removed")


def test_its_exit_record_alone(old: Daemon) -> None:
    """The old worker is gone, too, when the new daemon comes."""
    job, gate, ran = gated_job(old)
    worker = old.worker_of(job)
    old.kill()
    gate.touch()
    wait_for((old.state_dir / "exits" / "1.1.json").exists, "the old worker's exit record")
    os.kill(worker, signal.SIGKILL)
    install(old)
    old.start()
    ended_once(old, job, ran)


def test_a_faulty_configuration_does_not_end_it(old: Daemon) -> None:
    """Version 0.1.0 asks for `--version` only; the answer of this version is worth more than it was."""
    config = old.directory / "home" / "queuectl" / "queuectld.toml"
    assert old.stop() == 0
    old.environment["XDG_CONFIG_HOME"] = str(old.directory / "home")
    old.start()
    config.parent.mkdir(parents=True)
    config.write_text('colour = "red"\n')
    install(old)
    os.kill(old.pid, signal.SIGHUP)
    wait_for(lambda: "unknown key" in old.log.read_text(), "the reason in the log")
    assert old.call("server.info")["generation"] == 0
    config.unlink()
    reload(old)
