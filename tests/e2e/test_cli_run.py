"""`queuectl run`: a job as if it were run right here."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from queuectl_client import Client
from queuectl_client.commandline.session import Session
from queuectl_client.commands.run import run
from tests.client import Terminal, Tree, argv, background, output_of
from tests.harness import PATIENCE, Daemon, is_running, wait_for


def test_output_of_both_streams_and_nothing_else(single: Daemon, directory: Path) -> None:
    done = subprocess.run(
        argv(single, "run", "--", "sh", "-c", "pwd; echo $MARK >&2; printf '\\377\\033[31m'"),
        cwd=directory, env={**single.environment, "MARK": "x"}, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == f"{directory}\nx\n".encode() + b"\xff\x1b[31m"
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["-c", "exit 7"], 7, "exit code 7"),
        (["-c", "exit 255"], 255, "exit code 255"),
        (["-c", "kill -KILL $$"], 137, "killed by signal 9 (SIGKILL)"),
        (["-c", "kill -HUP $$"], 129, "killed by signal 1 (SIGHUP)"),
        (["--timeout", "50ms", "-c", "exec sleep 60"], 143, "timed out after 0.05 s"),
        (["--", "no-such-program"], 127, "can't find the program no-such-program"),
        (["--cwd", "/no/such", "--", "true"], 126, "can't enter the working directory /no/such"),
    ],
    ids=["exit", "exit 255", "killed", "hangup", "timeout", "no program", "no directory"],
)
def test_the_jobs_status_is_passed_on(single: Daemon, words: list[str], status: int, reason: str) -> None:
    done = single.queuectl("run", "--id", "it", "--max-retries", "1", *words, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    said, *_hint = done.stderr.splitlines()
    assert said.startswith("queuectl: job it is dead: ")
    assert reason in said


def test_attempts_follow_each_other_with_remarks_in_between(single: Daemon, directory: Path) -> None:
    script = f"echo x >>{directory}/n; n=$(wc -l <{directory}/n); echo attempt $n; [ $n = 3 ]"
    done = single.queuectl("run", "--max-retries", "4", "-c", script)
    assert done.stdout == "attempt 1\nattempt 2\nattempt 3\n"
    remarks = [line.partition(";")[0] for line in done.stderr.splitlines()]
    assert remarks == ["queuectl: attempt 1 failed: exit code 1", "queuectl: attempt 2 failed: exit code 1"]


def test_no_attempt_is_passed_over_by_one_who_looks_late(single: Daemon, directory: Path) -> None:
    count = f"echo x >>{directory}/n; n=$(wc -l <{directory}/n); echo attempt $n"
    script = f"{count}; until [ -e {directory}/go ]; do sleep 0.02; done; [ $n = 3 ]"
    with background(single, "run", "--id", "it", "--max-retries", "4", "-c", script) as process:
        assert output_of(process.stdout).readline() == "attempt 1\n"
        process.send_signal(signal.SIGSTOP)
        (directory / "go").touch()
        single.wait_state("it", "completed")
        process.send_signal(signal.SIGCONT)
        output, remarks = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (0, "attempt 2\nattempt 3\n")
    assert [line.partition(":")[2] for line in remarks.splitlines()] == [
        " attempt 1 failed: exit code 1",
        " attempt 2 failed: exit code 1",
    ]


def test_output_comes_while_the_job_runs(single: Daemon, directory: Path) -> None:
    script = f"echo begun; until [ -e {directory}/go ]; do sleep 0.02; done; echo ended"
    with background(single, "run", "-c", script) as process:
        assert output_of(process.stdout).readline() == "begun\n"
        (directory / "go").touch()
        assert output_of(process.stdout).read() == "ended\n"
        assert process.wait(PATIENCE) == 0


def test_without_workers_it_says_so_and_waits(daemon: Daemon) -> None:
    with background(daemon, "run", "--id", "it", "--", "echo", "done") as process:
        assert output_of(process.stderr).readline() == "queuectl: job it waits, and no worker runs\n"
        assert "queuectl worker start" in output_of(process.stderr).readline()
        daemon.queuectl("worker", "start")
        assert output_of(process.stdout).read() == "done\n"
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_job_and_its_tree(
    single: Daemon, directory: Path, number: signal.Signals, status: int
) -> None:
    tree = Tree(directory)
    single.call("config.set", key="kill_grace", value=60)
    with background(single, "run", "--id", "it", "-c", f"trap 'echo bye; exit 1' TERM; {tree.command}") as process:
        tree.pids()
        assert output_of(process.stdout).readline() == "begun\n"
        process.send_signal(number)
        output, remarks = process.communicate(timeout=PATIENCE)
        assert process.returncode == status
    assert output == "bye\n", "what it says at its end is shown too"
    assert "cancelling job it" in remarks
    assert tree.is_gone(), "it waited for the end"
    assert single.job("it")["state"] == "cancelled"
    single.wait_workers(1)


def test_control_c_on_a_terminal(single: Daemon, directory: Path) -> None:
    tree = Tree(directory)
    with Terminal(argv(single, "run", "--id", "it", "-c", tree.command), single.environment) as terminal:
        terminal.read_until(lambda output: "begun" in output, "the job's output")
        terminal.send("\x03")
        assert terminal.finish() == 130
    assert tree.is_gone()
    assert single.job("it")["state"] == "cancelled"


def test_a_job_that_waits_is_cancelled_too(daemon: Daemon) -> None:
    with background(daemon, "run", "--id", "it", "--", "true") as process:
        output_of(process.stderr).readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    assert daemon.job("it")["state"] == "cancelled"


def test_a_second_signal_does_not_wait(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=600)
    tree = Tree(directory)
    # It ignores SIGTERM, so that its end would be waited for ten minutes.
    with background(single, "run", "--id", "it", "-c", f"trap '' TERM; {tree.command}") as process:
        tree.pids()
        process.send_signal(signal.SIGINT)
        assert "cancelling job it" in output_of(process.stderr).readline()
        wait_for(lambda: single.job("it")["cancelling"], "the cancel to arrive")
        process.send_signal(signal.SIGINT)
        _, remarks = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    assert "job it may still be running" in remarks
    assert any(map(is_running, tree.pids()))


def test_a_job_that_somebody_else_cancels(single: Daemon, directory: Path) -> None:
    tree = Tree(directory)
    with background(single, "run", "--id", "it", "-c", tree.command) as process:
        tree.pids()
        single.queuectl("cancel", "it")
        _, remarks = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
    assert "queuectl: job it is cancelled" in remarks


@pytest.mark.parametrize("how", ["killed", "stopped", "reloaded"])
def test_it_rides_through_a_daemon_that_comes_back(single: Daemon, directory: Path, how: str) -> None:
    script = f"echo begun; until [ -e {directory}/go ]; do sleep 0.02; done; echo ended"
    with background(single, "run", "--id", "it", "-c", script) as process:
        assert output_of(process.stdout).readline() == "begun\n"
        if how == "killed":
            single.kill()
            (directory / "go").touch()
            single.start()
        elif how == "stopped":
            single.queuectl("daemon", "stop", "--now")
            assert single.process is not None
            assert single.process.wait(PATIENCE) == 0
            (directory / "go").touch()
            single.start()
        else:
            single.queuectl("daemon", "reload")
            (directory / "go").touch()
        output, remarks = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, remarks
    # Stopped, the attempt is interrupted, and a second one says all again.
    # (If its `sleep` is ended before the shell is, the shell remarks on it.)
    assert output.removeprefix("Terminated\n") == ("begun\nended\n" if how == "stopped" else "ended\n")
    assert ("attempt 1 was interrupted by a shutdown" in remarks) == (how == "stopped")


def test_a_directory_that_the_daemon_can_not_see_gives_a_hint(single: Daemon, directory: Path) -> None:
    done = single.queuectl("run", "--cwd", f"{directory}/gone", "--max-retries", "3", "--", "id", check=False)
    assert done.returncode == 126
    assert done.stderr.count("can't enter the working directory") == 3
    assert done.stderr.count("`--cwd DIR`") == 2, "after the first attempt, and in the end"
    once = single.queuectl("run", "--cwd", f"{directory}/gone", "--max-retries", "1", "--", "id", check=False)
    assert once.stderr.count("`--cwd DIR`") == 1


class Hasty(Session):
    """Gives up a daemon that is away at once."""

    def client(self, *, patience: float = 0.2, timeout: float | None = None) -> Client:
        return super().client(patience=patience, timeout=timeout)


@pytest.mark.parametrize("interrupted", [False, True])
def test_giving_up_a_daemon_that_stays_away_names_the_job(single: Daemon, directory: Path, interrupted: bool) -> None:
    single.queuectl("config", "set", "kill_grace", "60")
    script = f"trap : TERM; touch {directory}/begun; until [ -e {directory}/go ]; do sleep 0.02; done"

    def end_the_daemon() -> None:
        wait_for((directory / "begun").exists, "the job to begin")
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: single.job("it").get("cancelling"), "the cancel")
        single.kill()

    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(end_the_daemon)
        done = CliRunner().invoke(run, ["--id", "it", "-c", script], obj=Hasty(single.socket), prog_name="queuectl run")
        ending.result(PATIENCE)
    (directory / "go").touch()
    assert done.exit_code == 3
    assert f"no daemon answers at {single.socket}" in done.stderr
    if interrupted:
        assert "job it may still be running" in done.stderr
    else:
        assert "queuectl: job it goes on\n  hint: `queuectl logs -f it`" in done.stderr
        assert "`queuectl wait it`" in done.stderr


def test_an_attempt_that_timed_out_is_said_once(single: Daemon) -> None:
    done = single.queuectl("run", "--timeout", "50ms", "--max-retries", "2", "-c", "exec sleep 60", check=False)
    assert done.stderr.startswith("queuectl: attempt 1 timed out after 0.05 s")
