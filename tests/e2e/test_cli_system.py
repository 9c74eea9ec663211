"""The commands about the system: status, config, worker, daemon, backup, completion; several daemons; none at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from queuectl_client import Client
from queuectl_protocol.version import PROTOCOL, __version__
from tests.client import Tree, background, output_of, shell_environment, wait_connected
from tests.harness import PATIENCE, Daemon, is_running, processes_with, wait_for

STATES = ["pending", "processing", "completed", "failed", "dead", "cancelled"]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- status ---------------------------------------------------------------------------------------------------------


def test_status_for_people(single: Daemon, directory: Path) -> None:
    def counts() -> tuple[list[str], str]:
        table, _, rest = single.queuectl("status").stdout.partition("\n\n")
        rows = [line.split() for line in table.splitlines()]
        assert [row[0] for row in rows] == ["STATE", *STATES]
        return [row[1] for row in rows[1:]], rest

    single.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="running")
    single.wait_state("running", "processing")
    single.enqueue("true", id="waiting")
    numbers, rest = counts()
    assert numbers == ["1", "1", "0", "0", "0", "0"]
    [worker] = single.workers()
    assert rest.splitlines()[0] == f"Workers: 1 active (PID {worker['pid']})"
    assert rest.splitlines()[2].split()[:5] == [worker["id"], str(worker["pid"]), "busy", "running", "1"]
    (directory / "go").touch()
    single.wait_state("waiting", "completed")
    single.queuectl("worker", "stop", "--wait")
    numbers, rest = counts()
    assert numbers == ["0", "0", "2", "0", "0", "0"]
    assert rest.splitlines()[0] == "Workers: 0 active. Start some with `queuectl worker start --count 2`."


def test_status_for_programs(single: Daemon, directory: Path) -> None:
    single.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="running")
    single.worker_of("running")
    [status] = objects(single.queuectl("status", "--json").stdout)
    assert list(status) == ["counts", "workers", "daemon"]
    assert list(status["counts"]) == STATES
    assert status["counts"]["processing"] == 1
    [worker] = status["workers"]
    assert worker.keys() >= {"id", "pid", "state", "job"}
    assert (worker["state"], worker["job"]) == ("busy", "running")
    assert is_running(worker["pid"])
    assert status["daemon"]["pid"] == single.pid
    (directory / "go").touch()


def test_watching_in_a_pipe_is_an_answer_again_and_again(daemon: Daemon) -> None:
    with background(daemon, "status", "--watch", "0.1", "--json") as process:
        lines = output_of(process.stdout)
        assert json.loads(lines.readline())["counts"]["pending"] == 0
        daemon.enqueue("true")
        wait_for(lambda: json.loads(lines.readline())["counts"]["pending"] == 1, "the new job")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


# --- config ---------------------------------------------------------------------------------------------------------


def test_settings_are_listed_read_changed_and_given_back(daemon: Daemon) -> None:
    lines = daemon.queuectl("config", "list").stdout.splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "DEFAULT", "MEANING"]
    told = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    assert told["max_retries"] == ["3", "3"]
    assert told["backoff_base"] == ["2", "2"]
    listed = objects(daemon.queuectl("config", "list", "--json").stdout)
    assert [setting["key"] for setting in listed] == list(told)

    assert daemon.queuectl("config", "get", "max_retries").stdout == "3\n"
    assert daemon.queuectl("config", "set", "max_retries", "5").stdout == "max_retries = 5\n"
    assert daemon.queuectl("config", "get", "max_retries").stdout == "5\n"
    assert daemon.queuectl("config", "set", "backoff_base", "1.5").stdout == "backoff_base = 1.5\n"
    [setting] = objects(daemon.queuectl("config", "get", "max_retries", "--json").stdout)
    assert (setting["value"], setting["default"], setting["is_set"]) == (5, 3, True)
    assert daemon.queuectl("config", "unset", "max_retries").stdout == "max_retries = 3 (the default)\n"
    assert objects(daemon.queuectl("config", "get", "max_retries", "--json").stdout)[0]["is_set"] is False


def test_every_setting_takes_its_own_value_and_its_default(daemon: Daemon) -> None:
    for setting in objects(daemon.queuectl("config", "list", "--json").stdout):
        said = daemon.queuectl("config", "get", setting["key"]).stdout.strip()
        assert float(daemon.queuectl("config", "set", setting["key"], said).stdout.split(" = ")[1]) == float(said)
    assert {setting["is_set"] for setting in objects(daemon.queuectl("config", "list", "--json").stdout)} == {True}


def test_settings_count_at_once(single: Daemon, directory: Path) -> None:
    single.queuectl("config", "set", "max_retries", "2")
    [job] = single.queuectl("enqueue", "-c", f"echo x >>{directory}/n; false").stdout.split()
    single.wait_state(job, "dead")
    assert (directory / "n").read_text() == "x\nx\n"
    single.queuectl("config", "set", "backoff_base", "600")
    [job] = single.queuectl("enqueue", "-c", "false").stdout.split()
    single.wait_state(job, "failed")
    assert re.search(r"runs: .* \((in 9 m|in 10 m)\)", single.queuectl("show", job).stdout)


# --- worker ---------------------------------------------------------------------------------------------------------


def test_workers_are_started_listed_and_stopped(daemon: Daemon) -> None:
    assert daemon.queuectl("worker", "list").stdout.split() == ["WORKER", "PID", "STATE", "JOB", "ATTEMPT", "FOR"]
    assert daemon.queuectl("worker", "stop").stdout == "No workers to stop.\n"
    started = re.fullmatch(
        r"Started 2 workers \(2 in all\): (\S+) (\S+)\n", daemon.queuectl("worker", "start", "--count", "2").stdout
    )
    assert started
    [more] = objects(daemon.queuectl("worker", "start", "--json").stdout)
    assert more["desired"] == 3
    daemon.wait_workers(3)
    listed = objects(daemon.queuectl("worker", "list", "--json").stdout)
    assert {worker["id"] for worker in listed} == {*started.groups(), *more["ids"]}
    assert all(is_running(worker["pid"]) for worker in listed)
    table = daemon.queuectl("worker", "list").stdout.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [[one["id"], str(one["pid"]), "idle"] for one in listed]

    first, second = started.groups()
    said = daemon.queuectl("worker", "stop", first).stdout
    assert said == f"Stopping 1 worker after the current job of each: {first}\n"
    wait_for(lambda: len(daemon.workers()) == 2, "it to be gone")
    assert daemon.queuectl("worker", "stop", second, "--wait").stdout == f"Stopped 1 worker: {second}\n"
    [left] = daemon.workers()
    assert daemon.queuectl("worker", "stop", "--wait").stdout == f"Stopped 1 worker: {left['id']}\n"
    assert not any(is_running(worker["pid"]) for worker in listed)


def test_a_worker_is_stopped_after_its_job_or_now(single: Daemon, directory: Path) -> None:
    tree = Tree(directory)
    single.enqueue(tree.command, id="it")
    tree.pids()
    with background(single, "worker", "stop", "--wait") as process:
        single.wait_workers(1, "stopping")
        assert process.poll() is None, "it waits for the job"
        assert not tree.is_gone()
        assert single.queuectl("worker", "stop", "--now").returncode == 0
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output.startswith("Stopped 1 worker: ")
    assert tree.is_gone()
    assert (single.job("it")["state"], single.job("it")["attempts"]) == ("pending", 0)


# --- daemon ---------------------------------------------------------------------------------------------------------


class Home:
    """A state directory and a socket, as the environment names them; daemons come and go there."""

    def __init__(self, directory: Path, name: str) -> None:
        self.state = directory / name / "state"
        self.socket = directory / name / "sock"
        self.socket.parent.mkdir(parents=True)
        self._environment = shell_environment(directory)
        self._environment |= {"QUEUECTL_STATE_DIR": str(self.state), "QUEUECTL_SOCKET": str(self.socket)}

    def queuectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["queuectl", *arguments],
            env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=check, timeout=PATIENCE, cwd="/",
        )  # fmt: skip

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """The command while it runs; the caller waits for its end."""
        return subprocess.Popen(
            ["queuectl", *arguments],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def pid(self) -> int:
        """Of the daemon that answers."""
        pid: int = json.loads(self.queuectl("daemon", "status", "--json").stdout)["pid"]
        return pid


@pytest.fixture
def homes(directory: Path) -> Iterator[list[Home]]:
    made = [Home(directory, name) for name in ("one", "two")]
    yield made

    def end_all() -> bool:
        left = processes_with(str(directory))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(end_all, "every process to be gone")


def test_a_daemon_from_start_to_stop(homes: list[Home], directory: Path) -> None:
    home = homes[0]
    assert home.queuectl("daemon", "status", check=False).returncode == 3
    said = home.queuectl("daemon", "start", "--workers", "1", "--log-format", "json", "--log-level", "debug").stdout
    pid = home.pid()
    assert said == f"Started: PID {pid}, socket {home.socket}\n"
    assert os.getsid(pid) == pid, "it is nobody's child, and no terminal ends it"
    assert home.state.stat().st_mode & 0o777 == 0o700
    assert home.socket.stat().st_mode & 0o777 == 0o600
    assert home.queuectl("daemon", "start").stdout == f"Already running: PID {pid}, socket {home.socket}\n"
    assert [json.loads(line) for line in (home.state / "daemon.log").read_text().splitlines()]
    assert home.queuectl("run", "--", "echo", "hello").stdout == "hello\n"
    facts = dict(re.findall(r"^([\w ]+):\s+(.*)$", home.queuectl("daemon", "status").stdout, re.MULTILINE))
    assert facts["state"] == "running"
    assert facts["version"] == f"{__version__} (protocol {PROTOCOL})"
    assert (facts["pid"], facts["socket"], facts["state dir"]) == (str(pid), str(home.socket), str(home.state))
    assert facts["reloads"] == "0"

    assert home.queuectl("daemon", "reload").stdout == f"Reloaded: PID {pid}, version {__version__}\n"
    assert home.pid() == pid
    assert "reloads:      1" in home.queuectl("daemon", "status").stdout

    assert home.queuectl("daemon", "stop").stdout == f"Stopped: PID {pid}\n"
    assert not processes_with(str(directory))
    assert not home.socket.exists()
    assert not [*home.state.glob("*-wal"), *home.state.glob("*-shm"), *(home.state / "workers").iterdir()]
    for command in ("stop", "status", "reload"):
        assert home.queuectl("daemon", command, check=False).returncode == 3

    # The pool is there again, and so is the history.
    home.queuectl("daemon", "start")
    assert len(objects(home.queuectl("worker", "list", "--json").stdout)) == 1
    assert len(objects(home.queuectl("list", "--state", "completed", "--json").stdout)) == 1
    home.queuectl("daemon", "stop")


def test_a_stop_waits_for_a_running_job_unless_it_is_now(homes: list[Home], directory: Path) -> None:
    home = homes[0]
    tree = Tree(directory)
    home.queuectl("daemon", "start", "--workers", "1")
    home.queuectl("enqueue", "--id", "it", "-c", tree.command)
    tree.pids()
    pid = home.pid()
    stopping = threading.Thread(target=home.queuectl, args=("daemon", "stop"))
    stopping.start()
    wait_for(lambda: '"stopping":true' in home.queuectl("daemon", "status", "--json").stdout, "it to be stopping")
    refused = home.queuectl("enqueue", "--", "true", check=False)
    assert refused.returncode == 1
    assert "stopping" in refused.stderr
    assert "The daemon is stopping" in home.queuectl("status").stdout
    assert stopping.is_alive()
    assert not tree.is_gone()
    assert home.queuectl("daemon", "stop", "--now").stdout == f"Stopped: PID {pid}\n"
    stopping.join(PATIENCE)
    assert tree.is_gone()
    assert not processes_with(str(directory))
    home.queuectl("daemon", "start", "--workers", "0")
    [job] = objects(home.queuectl("list", "--json").stdout)
    assert (job["id"], job["attempts"]) == ("it", 0)


def test_a_start_while_the_daemon_stops_waits_and_starts_another(homes: list[Home], directory: Path) -> None:
    home = homes[0]
    home.queuectl("daemon", "start", "--workers", "1")
    home.queuectl("enqueue", "--id", "it", "-c", f"until [ -e {directory}/go ]; do sleep 0.02; done")
    wait_for(lambda: home.queuectl("list", "--state", "processing", "--json").stdout, "the job to run")
    before = home.pid()
    with ThreadPoolExecutor(2) as threads:
        stop = threads.submit(home.queuectl, "daemon", "stop")
        wait_for(lambda: '"stopping":true' in home.queuectl("daemon", "status", "--json").stdout, "it to be stopping")
        refused = home.queuectl("daemon", "reload", check=False)
        assert refused.returncode == 1
        assert f"the daemon (PID {before}) is stopping" in refused.stderr
        started = home.background("daemon", "start", "--workers", "2")
        try:
            assert started.stderr is not None
            assert f"the daemon (PID {before}) is stopping" in started.stderr.readline()
            assert started.poll() is None, "it waits for the job"
        finally:
            (directory / "go").touch()
            said, remarks = started.communicate(timeout=PATIENCE)
        assert stop.result(PATIENCE).returncode == 0
    assert (started.returncode, said) == (0, f"Started: PID {home.pid()}, socket {home.socket}\n"), remarks
    assert home.pid() != before
    assert len(objects(home.queuectl("worker", "list", "--json").stdout)) == 2


def test_two_daemons_side_by_side(homes: list[Home]) -> None:
    one, two = homes
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda home: home.queuectl("daemon", "start", "--workers", "1"), homes))
    assert one.pid() != two.pid()
    one.queuectl("enqueue", "--id", "same", "--", "echo", "one")
    two.queuectl("enqueue", "--id", "same", "--", "echo", "two")
    two.queuectl("enqueue", "--id", "more", "--", "true")
    assert one.queuectl("wait", "same").returncode == two.queuectl("wait", "same", "more").returncode == 0
    assert one.queuectl("logs", "same").stdout == "one\n"
    assert two.queuectl("logs", "same").stdout == "two\n"
    assert one.queuectl("show", "more", check=False).returncode == 1
    one.queuectl("config", "set", "max_retries", "9")
    assert two.queuectl("config", "get", "max_retries").stdout == "3\n"
    one.queuectl("daemon", "stop")
    assert two.queuectl("run", "--", "echo", "still here").stdout == "still here\n"
    refused = one.queuectl("--socket", str(two.socket), "daemon", "start", "--state-dir", str(one.state), check=False)
    assert refused.returncode == 1
    assert f"a daemon with another state directory ({two.state}) listens on {two.socket}" in refused.stderr


def test_many_starts_at_once_make_one_daemon(homes: list[Home]) -> None:
    home = homes[0]
    with ThreadPoolExecutor(5) as threads:
        said = list(threads.map(lambda _: home.queuectl("daemon", "start").stdout, range(5)))
    pid = home.pid()
    assert sorted(said) == sorted(
        [
            f"Started: PID {pid}, socket {home.socket}\n",
            *[f"Already running: PID {pid}, socket {home.socket}\n"] * 4,
        ]
    )


def test_a_deep_socket_is_served_and_found(directory: Path) -> None:
    deep = directory / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    daemon = Daemon(directory)
    daemon.socket = deep / "sock"
    daemon.spawn()
    try:
        wait_for(lambda: daemon.queuectl("status", check=False).returncode == 0, "the daemon")
        assert daemon.queuectl("enqueue", '{"id": "a", "command": "true"}').stdout == "a\n"
    finally:
        daemon.clean_up()


# --- backup ---------------------------------------------------------------------------------------------------------


def test_a_backup_is_restored_as_its_help_says(homes: list[Home], directory: Path) -> None:
    home = homes[0]
    home.queuectl("daemon", "start", "--workers", "1")
    home.queuectl("config", "set", "max_retries", "7")
    home.queuectl("run", "--id", "done", "--", "echo", "hello")
    home.queuectl("enqueue", "--id", "later", "--delay", "1h", "--", "true")
    copy = directory / "a copy.db"
    said = home.queuectl("backup", str(copy)).stdout
    assert re.fullmatch(rf"Copied to {re.escape(str(copy))} \((\d+) bytes\)\n", said)
    assert copy.stat().st_mode & 0o077 == 0, "it holds environments"
    again = home.queuectl("backup", str(copy), check=False)
    assert again.returncode == 1
    assert str(copy) in again.stderr
    assert json.loads(home.queuectl("backup", str(directory / "b.db"), "--json").stdout)["bytes"] > 0

    home.queuectl("enqueue", "--id", "lost", "--", "true")
    home.queuectl("daemon", "stop")
    for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
        (home.state / name).unlink(missing_ok=True)
    copy.rename(home.state / "queue.db")
    home.queuectl("daemon", "start")
    assert [job["id"] for job in objects(home.queuectl("list", "--state", "all", "--json").stdout)] == ["later", "done"]
    assert home.queuectl("config", "get", "max_retries").stdout == "7\n"
    assert home.queuectl("logs", "done").stdout == "hello\n"
    assert home.queuectl("run", "--id", "new", "--", "echo", "works").stdout == "works\n"


def test_a_backup_that_can_not_be_written(daemon: Daemon, directory: Path) -> None:
    for target in (directory / "no" / "such" / "directory", directory / "sock"):
        done = daemon.queuectl("backup", str(target), check=False)
        assert done.returncode == 1
        assert str(target) in done.stderr
    assert daemon.queuectl("backup", "/proc/copy.db", check=False).returncode == 1
    assert daemon.queuectl("status").returncode == 0


# --- completion -----------------------------------------------------------------------------------------------------


def complete(daemon: Daemon, line: str) -> list[str]:
    """What the shell is offered at the end of a line: the first offer of any, since a slow daemon is not waited for."""
    return wait_for(lambda: _offered(daemon, line), "something to be offered")


def _offered(daemon: Daemon, line: str) -> list[str]:
    environment = {"_QUEUECTL_COMPLETE": "bash_line", "QUEUECTL_LINE": line}
    done = subprocess.run(
        ["queuectl"],
        env={**shell_environment(daemon.directory, daemon), **environment},
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stderr == ""
    return [entry.split("\t")[1] for entry in done.stdout.splitlines()]


def test_ids_states_and_names_are_completed_from_the_daemon(single: Daemon) -> None:
    single.enqueue("exit 1", id="dead-one", max_retries=1)
    single.wait_state("dead-one", "dead")
    single.enqueue("true", id="pend-one", delay=3600)
    single.enqueue("true", id="pend-two", delay=3600)
    [worker] = single.workers()
    assert complete(single, "queuectl show pend") == ["pend-two", "pend-one"]
    assert complete(single, "queuectl show ") == ["pend-two", "pend-one", "dead-one"]
    assert complete(single, "queuectl cancel ") == ["pend-two", "pend-one"], "what can't be cancelled is not offered"
    assert complete(single, "queuectl dlq retry ") == ["dead-one"]
    assert complete(single, "queuectl list --state ") == [*STATES, "all"]
    assert complete(single, "queuectl list --state c") == ["completed", "cancelled"]
    assert complete(single, "queuectl list --queue ") == complete(single, "queuectl enqueue --queue d") == ["default"]
    assert complete(single, "queuectl enqueue --queue=de") == ["default"]
    assert complete(single, "queuectl config set back") == ["backoff_base", "backoff_max", "backoff_jitter"]
    assert complete(single, "queuectl worker stop ") == [worker["id"]]
    assert complete(single, "queuectl dlq ") == ["list", "purge", "retry"]
    assert complete(single, "queuectl con") == ["config"]
    assert "--priority" in complete(single, "queuectl enqueue --p")


def test_a_client_with_a_timeout_does_not_wait_before_it_asks_again(daemon: Daemon) -> None:
    with Client(daemon.socket, timeout=20) as client:
        client.info()
        began = time.monotonic()
        client.status()
        client.workers()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("timeout", [30 * 86_400, float("inf")])
def test_a_timeout_longer_than_the_system_can_wait_at_once(daemon: Daemon, timeout: float) -> None:
    with Client(daemon.socket, timeout=timeout) as client:
        assert client.info().pid == daemon.pid


def test_control_c_while_a_daemon_does_not_answer_completes_nothing_and_says_nothing(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "sock"))
        silent.listen()
        environment = {
            **shell_environment(directory),
            "QUEUECTL_SOCKET": str(directory / "sock"),
            "_QUEUECTL_COMPLETE": "bash_line", "QUEUECTL_LINE": "queuectl show a",
        }  # fmt: skip
        with subprocess.Popen(
            ["queuectl"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            connected, _ = silent.accept()
            with connected:
                connected.recv(65536)  # it has asked, and waits
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 130


# --- nobody, or somebody else, at the socket ------------------------------------------------------------------------


def test_a_daemon_of_another_protocol(directory: Path) -> None:
    daemon = Daemon(directory)
    asked: list[str] = []

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listening.accept()
                with connected, connected.makefile("rb") as lines:
                    for line in lines:
                        request = json.loads(line)
                        asked.append(request["method"])
                        result = {"protocol": PROTOCOL + 1, "version": "9.9"}
                        reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
                        connected.sendall(json.dumps(reply).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(daemon.socket))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            for words in (["enqueue", "--", "true"], ["run", "--", "true"], ["status"], ["worker", "start"]):
                done = daemon.queuectl(*words, check=False)
                assert (done.returncode, done.stdout) == (1, "")
                said, hint = done.stderr.splitlines()
                assert f"the daemon speaks protocol {PROTOCOL + 1} (version 9.9)" in said
                assert f"this client speaks {PROTOCOL} (version {__version__})" in said
                assert hint == "  hint: use the client of the daemon's version"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
    assert set(asked) == {"server.info"}, "nothing else is asked of it"


def test_twenty_clients_at_once_on_a_dead_socket(directory: Path) -> None:
    daemon = Daemon(directory)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(daemon.socket))
        left.listen()
    began = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        done = list(threads.map(lambda _: daemon.queuectl("enqueue", "--", "true", check=False), range(20)))
    assert {one.returncode for one in done} == {3}
    [error] = {one.stderr for one in done}
    assert error.splitlines()[0] == f"queuectl: no daemon answers at {daemon.socket}"
    assert "queuectl daemon start" in error.splitlines()[1]
    assert time.monotonic() - began < PATIENCE
    assert daemon.socket.is_socket(), "clients leave it to a daemon to take it over"
    try:
        daemon.start()
        assert daemon.queuectl("enqueue", '{"id": "a", "command": "true"}').stdout == "a\n"
    finally:
        daemon.clean_up()


def test_a_client_that_is_killed_before_the_reply_harms_nobody(single: Daemon) -> None:
    single.enqueue("true", id="it", delay=3600)
    with background(single, "wait", "it") as process, background(single, "logs", "-f", "it") as following:
        wait_connected(process)
        wait_connected(following)
    assert single.queuectl("cancel", "it").returncode == 0
    assert single.queuectl("run", "--", "echo", "on").stdout == "on\n"


def test_wait_rides_through_a_daemon_that_was_killed(single: Daemon, directory: Path) -> None:
    single.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="it")
    single.wait_state("it", "processing")
    with background(single, "wait", "it") as process:
        wait_connected(process)
        single.kill()
        (directory / "go").touch()
        single.start()
        assert process.communicate(timeout=PATIENCE) == ("it\tcompleted\n", "")
        assert process.returncode == 0


def test_version_and_help_need_no_daemon(directory: Path) -> None:
    environment = {**shell_environment(directory), "QUEUECTL_SOCKET": str(directory / "none")}
    for words, expected in ((["--version"], f"queuectl {__version__}\n"), (["-h"], "Usage: queuectl [OPTIONS]")):
        done = subprocess.run(["queuectl", *words], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(expected)
        assert done.stderr == ""
