"""Without workers nothing runs: whoever asks for work, or waits for it, is told so and how to start some."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import COLOURS, background, on_terminal, output_of
from tests.harness import PATIENCE, Daemon, wait_for

HINT = "queuectl worker start --count 2"


def told(stderr: str) -> bool:
    return "no worker" in stderr and HINT in stderr


def test_enqueue_says_it_on_a_terminal_only(daemon: Daemon) -> None:
    for words in (["--id", "a", "--", "true"], ['{"id": "b", "command": "true"}']):
        status, seen = on_terminal(daemon, "enqueue", *words)
        assert status == 0
        assert told(seen)
    assert daemon.queuectl("enqueue", "--", "true").stderr == ""
    daemon.call("worker.start", count=1)
    assert on_terminal(daemon, "enqueue", "--id", "c", "--", "true") == (0, "c\n")


def test_a_file_on_a_terminal_says_it_once(daemon: Daemon, directory: Path) -> None:
    (directory / "jobs").write_text('{"id": "a", "command": "true"}\n{"id": "b", "command": "true"}\n')
    _, seen = on_terminal(daemon, "enqueue", "--file", str(directory / "jobs"), TERM="dumb")
    assert told(seen)
    assert seen.count(HINT) == 1


@pytest.mark.parametrize("words", [["wait", "it"], ["logs", "-f", "it"]], ids=" ".join)
def test_who_waits_for_a_job_is_told(daemon: Daemon, words: list[str]) -> None:
    daemon.enqueue("echo done", id="it")
    with background(daemon, *words) as process:
        assert output_of(process.stderr).readline() == "queuectl: job it waits, and no worker runs\n"
        assert HINT in output_of(process.stderr).readline()
        daemon.call("worker.start", count=1)
        out, rest = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert rest == ""
        assert out in {"it\tcompleted\n", "done\n"}
    assert daemon.queuectl(*words).stderr == "", "with a worker nothing is said"


def test_nothing_is_said_about_jobs_that_need_no_worker(single: Daemon, directory: Path) -> None:
    single.enqueue("true", id="done")
    single.wait_state("done", "completed")
    single.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="runs")
    single.wait_state("runs", "processing")
    single.call("worker.stop")  # it finishes its job, and is the last one
    assert single.queuectl("wait", "done").stderr == ""
    assert single.queuectl("logs", "-f", "done").stderr == ""
    with background(single, "wait", "runs", "done") as waiting, background(single, "logs", "-f", "runs") as following:
        (directory / "go").touch()
        assert waiting.communicate(timeout=PATIENCE)[1] == ""
        assert following.communicate(timeout=PATIENCE)[1] == ""


def test_show_says_that_a_due_job_has_no_worker(daemon: Daemon) -> None:
    daemon.enqueue("true", id="it", delay=0)
    daemon.enqueue("true", id="later", delay=3600)
    assert f"runs:       no worker runs; start some with `{HINT}`" in daemon.queuectl("show", "it").stdout
    assert "no worker" not in daemon.queuectl("show", "later").stdout
    assert "no worker runs" in COLOURS.sub("", on_terminal(daemon, "show", "it", columns=200)[1])
    daemon.queuectl("show", "it", "--json")


@pytest.fixture
def home(directory: Path) -> Iterator[Daemon]:
    """A daemon that is started by `queuectl daemon start`."""
    one = Daemon(directory)
    yield one
    one.clean_up()


def start(home: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    return home.queuectl("daemon", "start", "--state-dir", str(home.state_dir), *words)


def test_daemon_start_says_it_and_brings_the_pool_to_what_is_asked_for(home: Daemon) -> None:
    fresh = start(home)
    assert fresh.stdout.startswith("Started: PID ")
    assert told(fresh.stderr)
    again = start(home, "--workers", "3")
    assert again.stdout.startswith("Already running: PID ")
    assert again.stdout.splitlines()[1] == "Workers: 3 (0 before)"
    assert again.stderr == ""
    home.wait_workers(3)
    assert start(home, "--workers", "3").stdout.count("\n") == 1
    fewer = start(home, "--workers", "1")
    assert fewer.stdout.splitlines()[1] == "Workers: 1 (3 before)"
    home.wait_workers(1)
    assert home.call("worker.list")["desired"] == 1
    none = start(home, "--workers", "0")
    assert none.stdout.splitlines()[1] == "Workers: 0 (1 before)"
    assert told(none.stderr)
    wait_for(lambda: not home.workers(), "the last worker to be gone")


def test_a_smaller_pool_keeps_the_workers_that_are_busy(home: Daemon, directory: Path) -> None:
    start(home, "--workers", "2")
    home.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="it")
    busy = home.worker_of("it")
    start(home, "--workers", "1")
    wait_for(lambda: [worker["pid"] for worker in home.workers()] == [busy], "the idle one to go")
    assert home.workers()[0]["state"] == "busy"
    (directory / "go").touch()


def test_worker_start_says_what_still_runs(single: Daemon, directory: Path) -> None:
    single.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="it")
    single.worker_of("it")
    [old] = [worker["id"] for worker in single.workers()]
    stopped = single.queuectl("worker", "stop").stdout
    assert stopped == f"Stopping 1 worker after the current job of each: {old}\nStill running: {old} (job it)\n"
    started = single.queuectl("worker", "start", "--count", "2").stdout.splitlines()
    assert started[0].startswith("Started 2 workers (2 in all): ")
    assert started[1:] == [f"Still running its last job, and not counted: {old} (job it)"]
    (directory / "go").touch()
    single.wait_state("it", "completed")
    wait_for(lambda: old not in {worker["id"] for worker in single.workers()}, "the old one to go")
    assert len(single.queuectl("worker", "start").stdout.splitlines()) == 1
