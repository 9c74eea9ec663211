"""Starting a daemon: who else is there already, sockets of all kinds, directories, flags, environment, config file."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import CHECKOUT, Daemon, Wire, wait_for

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""One that every user may run."""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
NOBODY = 65534


def refusal(daemon: Daemon, *arguments: str, status: int = 1) -> str:
    """What a daemon that can't start says; no traceback, and the status as expected."""
    daemon.spawn(*arguments)
    assert daemon.process is not None
    assert daemon.process.wait(60) == status
    text = daemon.log.read_text()
    assert "Traceback" not in text
    return text


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- one daemon a state directory -----------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_state_dir_is_refused(pool: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    job_id = pool.enqueue("sleep 0.5")
    second = make_daemon()
    second.state_dir = pool.state_dir
    text = refusal(second, "--workers", "5")
    assert str(pool.pid) in text
    assert str(pool.state_dir) in text
    assert not second.socket.exists()
    same_socket = make_daemon()
    same_socket.state_dir, same_socket.socket = pool.state_dir, pool.socket
    assert str(pool.pid) in refusal(same_socket)
    assert pool.wait_state(job_id, "completed")["attempts"] == 1
    assert pool.call("worker.list")["desired"] == 2


def test_a_second_daemon_is_refused_though_the_lock_was_removed(
    pool: Daemon, make_daemon: Callable[..., Daemon]
) -> None:
    (pool.state_dir / "daemon.lock").unlink()
    second = make_daemon()
    second.state_dir = pool.state_dir
    assert "another queuectld" in refusal(second)
    assert not (pool.state_dir / "daemon.lock").exists()


def test_two_daemons_side_by_side(make_daemon: Callable[..., Daemon]) -> None:
    first, second = make_daemon("--workers", "1").start(), make_daemon("--workers", "1").start()
    for daemon in (first, second):
        daemon.enqueue(f"echo {daemon.pid}", id="same")
    for daemon in (first, second):
        daemon.wait_state("same", "completed")
        assert daemon.output("same") == f"{daemon.pid}\n"
    assert first.stop() == 0
    assert second.call("server.info")["pid"] == second.pid


def test_a_killed_daemons_socket_and_lock_do_not_block_the_next(daemon: Daemon) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    first = daemon.pid
    daemon.start()
    assert daemon.call("server.info")["pid"] == daemon.pid != first


def test_a_lock_file_with_the_pid_of_a_stranger_does_not_block(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.state_dir.mkdir()
    (daemon.state_dir / "daemon.lock").write_text(f"{os.getpid()}\n")
    daemon.start()


# --- the socket -----------------------------------------------------------------------------------------------------


def test_a_socket_that_somebody_listens_on_is_left_alone(pool: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    other = make_daemon()
    other.socket = pool.socket
    text = refusal(other)
    assert str(pool.socket) in text
    assert "another" in text
    assert pool.call("server.info")["pid"] == pool.pid


def test_a_busy_strangers_socket_is_left_alone(make_daemon: Callable[..., Daemon]) -> None:
    """One that does not accept, its backlog full: who asks must not hang."""
    daemon = make_daemon()
    clients = []
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(daemon.socket))
        stranger.listen(0)
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            try:
                client.connect(str(daemon.socket))
            except BlockingIOError:
                break
        assert str(daemon.socket) in refusal(daemon)
    for client in clients:
        client.close()


def test_a_file_in_the_sockets_place_is_left_alone(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.socket.write_text("precious")
    assert "not a socket" in refusal(daemon)
    assert daemon.socket.read_text() == "precious"


def test_the_stopping_daemon_leaves_a_socket_that_is_not_its_own(daemon: Daemon) -> None:
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(daemon.socket))
        assert daemon.stop() == 0
        assert daemon.socket.exists()


@pytest.mark.parametrize("length", [107, 108, 150, 250])
def test_long_socket_paths_work(make_daemon: Callable[..., Daemon], length: int) -> None:
    daemon = make_daemon("--workers", "1")
    room = length - len(str(daemon.directory)) - 2 - len("/sock")
    name = "d" * min(room, 240)
    daemon.socket = daemon.directory / name / "x" / "sock"
    if room > 240:
        pytest.skip("the directory's path is too long for this")
    assert len(str(daemon.socket)) >= length - 2
    daemon.spawn()

    def connected() -> bool:
        assert daemon.process is not None
        assert daemon.process.poll() is None, daemon.log.read_text()
        if not daemon.socket.exists():
            return False
        directory = os.open(daemon.socket.parent, os.O_PATH)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(60)
            connection.connect(f"/proc/self/fd/{directory}/{daemon.socket.name}")
        except ConnectionRefusedError:
            connection.close()
            return False
        finally:
            os.close(directory)
        with Wire(connection) as wire:
            (job_id,) = wire.call("job.enqueue", jobs=[{"command": "true"}])["ids"]
            assert wire.call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"
        return True

    wait_for(connected, "the daemon to answer")
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_socket_in_a_directory_that_can_not_be_made(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.socket = Path("/proc/nowhere/sock")
    assert "/proc/nowhere/sock" in refusal(daemon)


def test_a_relative_socket_is_where_it_was_started(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    command = [sys.executable, "-m", "queuectld", "--state-dir", "s", "--socket", "sock"]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=log, env=daemon.environment, cwd=daemon.directory
        )
    daemon.wait_ready()
    daemon.call("worker.start", count=1)
    daemon.wait_state(daemon.enqueue("true"), "completed")
    assert (daemon.directory / "s" / "queue.db").exists()


# --- who may do what ------------------------------------------------------------------------------------------------


def test_modes_of_everything(pool: Daemon) -> None:
    pool.wait_state(pool.enqueue("echo x"), "completed")
    assert mode(pool.socket) == 0o600
    assert mode(pool.state_dir) == 0o700
    for path in pool.state_dir.rglob("*"):
        assert mode(path) & 0o077 == 0, path


def test_the_socket_group(make_daemon: Callable[..., Daemon]) -> None:
    group = grp.getgrgid(os.getegid())
    for name in (group.gr_name, str(group.gr_gid)):
        daemon = make_daemon("--socket-group", name).start()
        assert mode(daemon.socket) == 0o660
        assert daemon.socket.stat().st_gid == group.gr_gid
    assert "no-such-group" in refusal(make_daemon(), "--socket-group", "no-such-group")


ASK = (
    "import socket, sys\n"
    "s = socket.socket(socket.AF_UNIX)\n"
    "s.connect(sys.argv[1])\n"
    "try:\n"
    '    s.sendall(b\'{"jsonrpc":"2.0","id":1,"method":"server.info"}\\n\')\n'
    "except BrokenPipeError:\n"
    "    pass  # told to go, and closed: what it said is there to read\n"
    "print(s.makefile().readline())\n"
)


def ask_as(daemon: Daemon, user: int, group: int, *groups: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SYSTEM_PYTHON, "-c", ASK, str(daemon.socket)],
        user=user, group=group, extra_groups=groups, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def open_ways(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o755)


@root_only
def test_another_user_can_not_connect(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    daemon = make_daemon().start()
    open_ways(directory, daemon.directory)
    assert "PermissionError" in ask_as(daemon, NOBODY, NOBODY).stderr
    daemon.socket.chmod(0o666)  # even where the file's mode would let it
    assert json.loads(ask_as(daemon, NOBODY, NOBODY).stdout)["error"]["data"]["kind"] == "forbidden"
    assert "result" in json.loads(ask_as(daemon, 0, 0).stdout)


@root_only
def test_members_of_the_socket_group_may(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    daemon = make_daemon("--socket-group", "12345").start()
    open_ways(directory, daemon.directory)
    assert "result" in json.loads(ask_as(daemon, NOBODY, 12345).stdout)
    assert "result" in json.loads(ask_as(daemon, NOBODY, NOBODY, 4444, 12345).stdout)
    assert "PermissionError" in ask_as(daemon, NOBODY, NOBODY, 4444).stderr


@root_only
def test_a_member_of_very_many_groups_may(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    daemon = make_daemon("--socket-group", "12345").start()
    open_ways(directory, daemon.directory)
    for others in (range(20_000, 20_300), range(10_000, 12_000)):
        done = ask_as(daemon, NOBODY, 23456, 12345, *others)
        assert json.loads(done.stdout)["result"]["pid"] == daemon.pid


@root_only
@pytest.mark.parametrize("way", ["below another user's directory", "below a directory that all may write to"])
def test_a_socket_that_others_could_replace_is_neither_made_nor_used(
    make_daemon: Callable[..., Daemon], directory: Path, way: str
) -> None:
    daemon = make_daemon()
    home = daemon.directory / "home"
    (home / "mine").mkdir(parents=True)
    daemon.socket = home / "mine" / "sock"
    daemon.start()

    def spoil() -> None:
        if way.startswith("below another"):
            os.chown(home, NOBODY, NOBODY)
        else:
            home.chmod(0o777)

    assert daemon.queuectl("status").returncode == 0
    spoil()
    done = daemon.queuectl("enqueue", "--env", "TOKEN=secret", "--", "true", check=False)
    assert done.returncode == 3
    assert f"other users can put something else in the place of {home}" in done.stderr
    assert daemon.call("job.list")["jobs"] == []
    other = make_daemon("--socket", str(home / "mine" / "another"))
    assert str(home) in refusal(other)


@root_only
def test_a_group_member_is_no_worker(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    daemon = make_daemon("--socket-group", "12345").start()
    open_ways(directory, daemon.directory)
    ask = ASK.replace('"method":"server.info"', '"method":"worker.heartbeat"')
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", ask, str(daemon.socket)],
        user=NOBODY, group=12345, extra_groups=[], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "forbidden"


@root_only
@pytest.mark.parametrize("who", ["not writable", "of another user"])
def test_a_state_dir_that_can_not_be_used(make_daemon: Callable[..., Daemon], directory: Path, who: str) -> None:
    daemon = make_daemon()
    open_ways(directory, daemon.directory)
    if who == "of another user":
        daemon.state_dir.mkdir()
    # It becomes the other user once everything is imported: that user may not be able to read this interpreter.
    program = (
        "import os, sys, tempfile, platformdirs, queuectld.cli, queuectld.daemon\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "queuectld.cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--state-dir", str(daemon.state_dir), "--socket", str(daemon.socket)],
        env={**daemon.environment, "HOME": "/"}, cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(daemon.state_dir) in done.stderr
    assert ("another user" if who == "of another user" else "Permission denied") in done.stderr


def can_be(user: int) -> bool:
    """Whether a user namespace can make us that user."""
    command = ["unshare", "--user", f"--map-user={user}", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("user", [NOBODY, 54321], ids=["without a home", "without a name"])
def test_a_user_without_a_home_or_a_name(
    make_daemon: Callable[..., Daemon], reachable: Callable[[Daemon], Daemon], user: int
) -> None:
    """As in many containers; jobs that say where to run do run, and others are told what is missing."""
    if not can_be(user):
        pytest.skip("no user namespaces here")
    daemon = reachable(make_daemon("--workers", "1"))
    daemon.launcher = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
    daemon.start()
    daemon.wait_workers(1)
    here = daemon.enqueue("id -u", cwd="/")
    daemon.wait_state(here, "completed")
    assert daemon.output(here) == f"{user}\n"
    nowhere = daemon.wait_state(daemon.enqueue("pwd", max_retries=1), "dead", "completed")
    if nowhere["state"] == "dead":
        home = pwd.getpwuid(user).pw_dir
        assert (nowhere["exit_code"], home in nowhere["error"]) == (126, True)


# --- flags, environment, config file --------------------------------------------------------------------------------


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL_")}
    return subprocess.run(
        [sys.executable, "-m", "queuectld", *arguments], env={**clean, "PYTHONPATH": CHECKOUT, **environment},
        capture_output=True, text=True, check=False, timeout=60, cwd="/",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--workers", "-1"), "--workers"),
        (("--workers", "many"), "--workers"),
        (("--log-level", "loud"), "--log-level"),
        (("--log-format", "xml"), "--log-format"),
        (("--colour",), "--colour"),
        (("extra",), "extra"),
        (("--config", "/no/such/file"), "/no/such/file"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], named: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help() -> None:
    assert re.fullmatch(r"queuectld, version \d+\.\d+\.\d+\n", run("--version").stdout)
    assert "--state-dir" in run("--help").stdout


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    make_daemon: Callable[..., Daemon], directory: Path
) -> None:
    daemon = make_daemon()
    config = directory / "queuectld.toml"
    config.write_text('workers = 1\nlog_format = "json"\nlog_level = "debug"\n')
    daemon.start("--config", str(config))
    assert daemon.call("worker.list")["desired"] == 1
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert {"time", "level", "message"} <= set(lines[0])
    daemon.stop()
    daemon.environment["QUEUECTL_WORKERS"] = "2"
    daemon.start("--config", str(config))
    assert daemon.call("worker.list")["desired"] == 2
    daemon.stop()
    daemon.start("--config", str(config), "--workers", "3")
    assert daemon.call("worker.list")["desired"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("colour = 1", "{path} has an unknown key 'colour'"),
        ("workers = ", "{path} can't be read"),
        ('workers = "x"', "{path}: the value of workers is wrong: 'x'"),
        ("workers = -1", "{path}: the value of workers is wrong: -1"),
        ("workers = [1]", "{path}: the value of workers must be a whole number"),
        ("workers = true", "{path}: the value of workers must be a whole number"),
        ("state_dir = 5", "{path}: the value of state_dir must be a string"),
        ('log_level = "loud"', "{path}: the value of log_level is wrong: 'loud'"),
    ],
)
def test_a_bad_config_file(directory: Path, content: str, said: str) -> None:
    config = directory / "c.toml"
    config.write_text(content)
    done = run("--config", str(config), "--socket", str(directory / "sock"), XDG_STATE_HOME=str(directory))
    assert done.returncode == 2
    assert said.format(path=config) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (directory / "sock").exists()


def test_state_dir_and_socket_from_the_environment(make_daemon: Callable[..., Daemon], directory: Path) -> None:
    daemon = make_daemon()

    def start(**environment: str) -> dict[str, str]:
        base = {name: value for name, value in daemon.environment.items() if name not in variables}
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                [sys.executable, "-m", "queuectld"], stdin=subprocess.DEVNULL, stderr=log, cwd="/",
                env={**base, "HOME": str(directory), **environment},
            )  # fmt: skip
        daemon.wait_ready()
        info: dict[str, str] = daemon.call("server.info")
        assert daemon.stop() == 0
        return info

    variables = {"STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"}
    mine, systemd, xdg = directory / "mine", directory / "systemd", directory / "xdg"
    for path in (mine, systemd, xdg):
        path.mkdir(mode=0o700)
    daemon.socket = xdg / "queuectl" / "queuectl.sock"
    user = {"XDG_STATE_HOME": str(xdg), "XDG_RUNTIME_DIR": str(xdg)}
    assert start(**user)["state_dir"] == str(xdg / "queuectl")
    daemon.socket = systemd / "queuectl.sock"
    unit = {**user, "STATE_DIRECTORY": str(systemd), "RUNTIME_DIRECTORY": str(systemd)}
    assert start(**unit)["state_dir"] == str(systemd)
    daemon.socket = mine / "sock"
    own = {**unit, "QUEUECTL_STATE_DIR": str(mine), "QUEUECTL_SOCKET": str(daemon.socket)}
    assert start(**own)["state_dir"] == str(mine)


def test_log_formats_and_levels(make_daemon: Callable[..., Daemon]) -> None:
    human = make_daemon("--workers", "1").start()
    human.wait_state(human.enqueue("exit 1", max_retries=1), "dead")
    assert human.stop() == 0
    lines = human.log.read_text().splitlines()
    pattern = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (debug|info|warning|error|critical) +\S.*")
    assert [line for line in lines if not pattern.fullmatch(line)] == []
    assert len([line for line in lines if " ready " in line]) == 1
    quiet = make_daemon("--log-level", "error").start()
    assert quiet.stop() == 0
    assert quiet.log.read_text() == ""


def test_what_a_user_writes_can_not_forge_a_log_line(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("--workers", "1").start()
    argv = ["/no/such\n2026-01-01 00:00:00 info    ready forged=1"]
    (job_id,) = daemon.call("job.enqueue", jobs=[{"argv": argv, "max_retries": 1}])["ids"]
    daemon.wait_state(job_id, "dead")
    assert daemon.stop() == 0
    assert not any(line.startswith("2026-01-01") for line in daemon.log.read_text().splitlines())


@pytest.mark.parametrize("flag", ["--state-dir", "--socket"])
def test_a_name_that_is_no_text_is_refused(make_daemon: Callable[..., Daemon], flag: str) -> None:
    """It can't be told in JSON: the daemon came up, and whoever asked where it is got no answer at all."""
    daemon = make_daemon()
    name = os.fsdecode(os.fsencode(daemon.directory) + b"/caf\xe9")
    assert "is not UTF-8: " in refusal(daemon, flag, name)
    assert not Path(name).exists()


# --- what whoever starts it may have left ---------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_started_with_standard_descriptors_closed(
    make_daemon: Callable[..., Daemon], directory: Path, closed: str
) -> None:
    """Found: the worker's lock became descriptor 2, its job did not inherit it, and attempts overlapped."""
    daemon = make_daemon("--workers", "1")
    daemon.launcher = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh"]
    daemon.start()
    job = daemon.enqueue(f"echo $$ > {directory}/new; mv {directory}/new {directory}/pid; sleep 1000")
    wait_for((directory / "pid").exists, "the job to run")
    worker, pid = daemon.worker_of(job), int((directory / "pid").read_text())
    locks = str(daemon.state_dir / "workers")
    for process in (daemon.pid, worker):
        for number in range(3):
            assert "/state/" not in str(Path(f"/proc/{process}/fd/{number}").readlink())
    assert [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if str(entry.readlink()).startswith(locks)]
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the reload")
    daemon.call("worker.stop", now=True)
    assert daemon.stop() == 0


def test_started_with_every_signal_blocked(make_daemon: Callable[..., Daemon]) -> None:
    block = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
    daemon = make_daemon("--workers", "1")
    daemon.launcher = [sys.executable, "-c", block + "os.execv(sys.argv[1], sys.argv[1:])"]
    daemon.start()
    (worker,) = daemon.wait_workers(1)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{worker['pid']}").exists(), "the dead worker to be collected")
    daemon.wait_state(daemon.enqueue("true"), "completed")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the reload")
    assert daemon.stop() == 0


def test_a_reload_that_is_asked_for_at_the_very_start_is_carried_out_then(pool: Daemon) -> None:
    assert pool.stop() == 0
    lock = pool.state_dir / "daemon.lock"
    lock.unlink()
    with closing(sqlite3.connect(pool.state_dir / "queue.db", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        pool.spawn()
        pid = wait_for(lambda: lock.exists() and lock.read_text(), "a daemon that waits for its database")
        os.kill(int(pid), signal.SIGHUP)
        held.rollback()
    pool.wait_ready()
    wait_for(lambda: pool.call("server.info")["generation"] == 1, "the reload")
