"""What SECURITY.md says: who may say what, what is written where, and what is never written anywhere.

Who may connect, with and without a socket group, is tested in test_start.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, RefusedError, wait_for

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""One that every user may run."""
NOBODY = 65534
SECRET = "hunter2-do-not-tell"
NASTY = "x\n2026-01-01 00:00:00 info    forged\r\x1b[2J\x1b]0;title\x07\u202e\x9b31m"
"""What a terminal obeys, what ends a line, and what looks like another line."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def careless(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Started by somebody who lets everybody read and write everything; busy, and with a record and a backup."""
    daemon = make_daemon()
    with umask(0):
        daemon.start("--workers", "2")
    daemon.wait_workers(2)
    gate = daemon.directory / "gate"
    job_id = daemon.enqueue(f"echo {SECRET}; until test -e {gate}; do sleep 0.01; done; exit 1", max_retries=1)
    daemon.wait_state(job_id, "processing")
    daemon.enqueue("until false; do sleep 0.05; done")
    daemon.wait_workers(2, "busy")
    daemon.kill()
    gate.touch()
    wait_for(lambda: list((daemon.state_dir / "exits").glob("*.json")), "an exit record")
    return daemon


def test_nobody_else_may_read_or_write_what_a_careless_starter_left(careless: Daemon) -> None:
    record = next((careless.state_dir / "exits").glob("*.json"))
    assert mode(record) == 0o600
    with umask(0):
        careless.start()
    careless.call("server.backup", path=str(careless.directory / "copy.db"))
    wait_for(lambda: not list((careless.state_dir / "exits").iterdir()), "the exit record to be taken")
    found = {path: mode(path) for path in [careless.state_dir, *careless.state_dir.rglob("*")]}
    names = {path.name for path in found}
    assert {"queue.db", "queue.db-wal", "queue.db-shm", "daemon.lock", "running", "reserve", "1.1.log"} <= names
    assert [path for path in found if path.suffix == ".lock" and path.parent.name == "workers"]
    expected = {path: 0o700 if path.is_dir() else 0o600 for path in found}
    assert found == expected
    assert mode(careless.socket) == 0o600
    assert mode(careless.directory / "copy.db") == 0o600


def test_the_log_of_a_daemon_that_the_client_started_is_its_users_own(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    with umask(0):
        daemon.queuectl("daemon", "start", "--state-dir", str(daemon.state_dir))
    assert (mode(daemon.state_dir), mode(daemon.state_dir / "daemon.log")) == (0o700, 0o600)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
def test_another_user_reads_nothing_of_the_state_directory(careless: Daemon, directory: Path) -> None:
    for path in (directory, careless.directory):
        path.chmod(0o755)
    program = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read()\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    print(path)\n"
    )
    paths = [str(path) for path in [careless.state_dir, *careless.state_dir.rglob("*")]]
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", program, *paths], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    control = subprocess.run([SYSTEM_PYTHON, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert len(control.stdout.splitlines()) == len(paths), "root reads all of it"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
def test_a_uid_beyond_two_billion_is_told_as_it_is(daemon: Daemon, directory: Path) -> None:
    for path in (directory, daemon.directory):
        path.chmod(0o755)
    daemon.socket.chmod(0o666)
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.makefile().readline())"
    )
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", ask, str(daemon.socket)], user=3_000_000_000, group=NOBODY, extra_groups=[],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "forbidden"
    assert "uid=3000000000" in daemon.log.read_text()


# --- what only workers may say --------------------------------------------------------------------------------------

IMPOSTOR = """
import json, os, socket, sys
def ask(method, **params):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        connection.sendall(json.dumps(request).encode() + b"\\n")
        return json.loads(connection.makefile().readline())
me = os.environ["QUEUECTL_JOB_ID"]
(worker,) = [worker for worker in ask("worker.list")["result"]["workers"] if worker["job"] == me]
token = os.environ["QUEUECTL_LEASE"].split("@")[0]
attempt = {"job": 1, "attempt": 1, "token": token}
ended = {**attempt, "outcome": "completed", "ended_at": 1}
for reply in (
    ask("worker.attach", worker=worker["id"]),
    ask("worker.attach", worker=worker["id"], running=attempt),
    ask("worker.attach", worker=worker["id"], ended=ended),
    ask("worker.finish", ended=ended),
    ask("worker.heartbeat"),
):
    print(reply["error"]["data"]["kind"])
sys.exit(7)
"""


def test_a_job_can_not_speak_for_its_worker(single: Daemon) -> None:
    """It runs as the same user, knows the worker's id and the lease's token; but it is not that process."""
    script = single.directory / "impostor.py"
    script.write_text(IMPOSTOR)
    workers = single.workers()
    job_id = single.enqueue(f"exec {sys.executable} {script} {single.socket}", max_retries=1)
    job = single.wait_state(job_id, "dead", "completed")
    assert single.output(job_id).split() == ["forbidden"] * 5
    assert (job["state"], job["exit_code"], len(job["history"])) == ("dead", 7, 1)
    assert [worker["pid"] for worker in single.wait_workers(1)] == [worker["pid"] for worker in workers]


# --- what people write ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["../x", "/etc/passwd", "a/b", "a b", "a\n", "\x1b[2J", "a\0", "é", "", "x" * 129])
def test_an_id_that_could_be_more_than_a_name_is_refused(daemon: Daemon, job_id: str) -> None:
    with pytest.raises(RefusedError) as caught:
        daemon.enqueue("true", id=job_id)
    assert caught.value.kind == "invalid_params"
    with pytest.raises(RefusedError) as caught:
        daemon.enqueue("true", queue=job_id)
    assert caught.value.kind == "invalid_params"
    assert daemon.call("status.get")["counts"]["pending"] == 0


def test_no_id_leads_out_of_the_directory(single: Daemon) -> None:
    before = {path for path in single.directory.rglob("*") if single.state_dir not in path.parents}
    ids = [".", "..", "...", "-rf", ".ssh", "1.1.log", "..1", "-"]
    for job_id in ids:
        single.enqueue("echo said; exit 1", id=job_id, queue=job_id, max_retries=1)
    single.call("job.wait", ids=ids)
    logs = sorted(path.name for path in (single.state_dir / "logs").rglob("*") if path.is_file())
    assert logs == sorted(f"{number}.1.log" for number in range(1, len(ids) + 1))
    assert {path for path in single.directory.rglob("*") if single.state_dir not in path.parents} == before


def enqueue_nasty(daemon: Daemon) -> None:
    """Jobs whose label, command, argument and error are all as nasty as can be; all of them dead."""
    daemon.call(
        "job.enqueue",
        jobs=[
            {"id": "command", "command": f"exit 3 # {NASTY}", "label": NASTY, "max_retries": 1},
            {"id": "argv", "argv": [f"/none/{NASTY}", NASTY], "label": NASTY, "max_retries": 1},
            {"id": "cwd", "command": "true", "cwd": f"/none/{NASTY}", "max_retries": 1},
        ],
    )
    daemon.call("job.wait", ids=["command", "argv", "cwd"])


@pytest.mark.parametrize(
    "view",
    [
        ("list", "--state", "all"), ("dlq", "list"), ("show", "command"), ("show", "argv"), ("show", "cwd"),
        ("status",), ("wait", "argv", "cwd"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_nothing_that_people_write_gets_out_of_its_cell(single: Daemon, view: tuple[str, ...]) -> None:
    enqueue_nasty(single)
    done = single.queuectl(*view, check=False)
    lines = [*done.stdout.split("\n"), *done.stderr.split("\n")]
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert all(line.replace("\t", "").isprintable() for line in lines)
    if view[0] in ("list", "dlq"):
        assert len(done.stdout.splitlines()) == 1 + 3, "a heading, and a line for each job"
    if view[0] in ("list", "dlq", "show"):
        assert "forged" in done.stdout, "it is shown, and does nothing"


@pytest.mark.parametrize("view", [("list", "--state", "all"), ("dlq", "list")], ids=" ".join)
def test_programs_get_one_object_a_line_all_the_same(single: Daemon, view: tuple[str, ...]) -> None:
    enqueue_nasty(single)
    jobs = [json.loads(line) for line in single.queuectl(*view, "--json").stdout.split("\n") if line]
    assert {job["label"] for job in jobs} == {NASTY, ""}


@pytest.mark.parametrize("form", ["human", "json"])
def test_nothing_that_people_write_gets_out_of_its_log_line(make_daemon: Callable[..., Daemon], form: str) -> None:
    daemon = make_daemon("--log-level", "debug", "--log-format", form).start("--workers", "1")
    enqueue_nasty(daemon)
    for method, params in (("job.get", {"id": NASTY}), (NASTY, {}), ("config.get", {"key": "k" + NASTY[:60]})):
        with pytest.raises(RefusedError):
            daemon.call(method, **params)
    assert daemon.stop() == 0
    text = daemon.log.read_text()
    assert "forged" in text, "the errors of the jobs are told"
    lines = text.rstrip("\n").split("\n")
    if form == "json":
        for line in lines:
            entry = json.loads(line)
            assert set(entry) >= {"time", "level", "logger", "message"}
            assert "\x1b" not in line
        return
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith("2026-01-01")]


# --- environments ---------------------------------------------------------------------------------------------------


def process_titles() -> str:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes() + (entry / "comm").read_bytes())
            except OSError:
                continue
    return b"\n".join(found).decode(errors="replace")


@pytest.mark.parametrize("form", ["human", "json"])
def test_environments_are_told_to_nobody_who_does_not_ask(make_daemon: Callable[..., Daemon], form: str) -> None:
    """Through all that happens to jobs: they run, fail, are cancelled, lose their worker; the daemon is replaced."""
    daemon = make_daemon("--log-level", "debug", "--log-format", form).start("--workers", "1")
    for key, value in {"kill_grace": 0, "backoff_base": 0}.items():
        daemon.call("config.set", key=key, value=value)
    env = {"TOKEN": SECRET, SECRET: "name"}

    def enqueue(job_id: str, **fields: Any) -> None:
        daemon.call("job.enqueue", jobs=[{"id": job_id, "env": env, "max_retries": 1, **fields}])

    enqueue("fails", command="exit 1")
    enqueue("missing", argv=["/none"])
    enqueue("refused", argv=["x"], cwd="/none")
    daemon.call("job.wait", ids=["fails", "missing", "refused"])
    with pytest.raises(RefusedError) as caught:
        enqueue("fails", command="other")
    assert SECRET not in json.dumps(caught.value.error)
    with pytest.raises(RefusedError) as caught:
        daemon.call("job.enqueue", jobs=[{"command": "true", "env": {"TOKEN": f"{SECRET}\0"}}])
    assert SECRET not in json.dumps(caught.value.error)
    enqueue("runs", command="while :; do sleep 0.05; done")
    daemon.wait_state("runs", "processing")
    titles = process_titles()
    assert str(daemon.state_dir) in titles
    assert SECRET not in titles
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.call("server.info")["generation"] == 1, "the daemon to be re-executed")
    daemon.wait_workers(1, "busy")
    os.kill(daemon.workers()[0]["pid"], signal.SIGKILL)
    daemon.wait_state("runs", "dead")
    daemon.call("job.retry", ids=["runs"])
    daemon.wait_state("runs", "processing")
    daemon.call("job.cancel", ids=["runs"])
    daemon.wait_state("runs", "cancelled")
    told = [
        daemon.call("job.list", limit=100), daemon.call("dlq.list"), daemon.call("status.get"),
        daemon.call("job.get", id="runs"), daemon.call("job.logs", id="fails"), daemon.call("worker.list"),
        daemon.queuectl("list", "--state", "all").stdout, daemon.queuectl("list", "--state", "all", "--json").stdout,
        daemon.queuectl("show", "runs").stdout, daemon.queuectl("show", "runs", "--json").stdout,
        daemon.queuectl("status", "--json").stdout, daemon.queuectl("dlq", "list", "--json").stdout,
    ]  # fmt: skip
    assert SECRET not in json.dumps(told)
    asked = daemon.call("job.get", id="runs", env=True)
    assert asked["env"] == env
    assert daemon.stop() == 0
    log = daemon.log.read_text()
    assert "missing" in log, "the log does tell of the jobs"
    assert SECRET not in log
    holders = [
        path.name for path in daemon.state_dir.rglob("*") if path.is_file() and SECRET in path.read_text("latin-1")
    ]
    assert {name.removesuffix("-wal") for name in holders} == {"queue.db"}, "in the database, and nowhere else"


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["file", "nothing", "live socket"])
def test_a_link_in_the_sockets_place_is_refused_and_left_alone(make_daemon: Callable[..., Daemon], target: str) -> None:
    other = make_daemon()
    if target == "live socket":
        other.start()
    daemon = make_daemon()
    pointed = other.socket if target == "live socket" else daemon.directory / "target"
    if target == "file":
        pointed.write_text("precious")
    daemon.socket.symlink_to(pointed)
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 1
    said = daemon.log.read_text()
    assert f"{daemon.socket} is there, and is not a socket" in said
    assert "Traceback" not in said
    assert daemon.socket.readlink() == pointed
    if target == "file":
        assert pointed.read_text() == "precious"
    if target == "live socket":
        assert other.call("server.info")["pid"] == other.pid


@pytest.mark.parametrize("target", ["file", "nothing", "directory"])
def test_a_backup_is_not_written_through_a_link(daemon: Daemon, target: str) -> None:
    pointed, link = daemon.directory / "target", daemon.directory / "copy.db"
    if target == "file":
        pointed.write_text("precious")
    if target == "directory":
        pointed.mkdir()
    link.symlink_to(pointed)
    before = sorted(daemon.directory.iterdir())
    with pytest.raises(RefusedError) as caught:
        daemon.call("server.backup", path=str(link))
    assert caught.value.kind == "conflict"
    assert link.readlink() == pointed
    assert sorted(daemon.directory.iterdir()) == before
    if target == "file":
        assert pointed.read_text() == "precious"


def test_a_backup_does_not_replace_a_file(daemon: Daemon) -> None:
    there = daemon.directory / "copy.db"
    there.write_text("precious")
    with pytest.raises(RefusedError) as caught:
        daemon.call("server.backup", path=str(there))
    assert caught.value.kind == "conflict"
    assert there.read_text() == "precious"


def test_output_is_not_written_through_a_link(single: Daemon) -> None:
    precious, logs = single.directory / "precious", single.state_dir / "logs" / "0"
    precious.write_text("precious")
    logs.mkdir()
    (logs / "1.1.log").symlink_to(precious)
    job_id = single.enqueue("echo written", max_retries=1)
    single.wait_state(job_id, "completed")
    assert precious.read_text() == "precious"
    assert single.output(job_id, 1) == "written\n"  # the link is gone


def test_an_exit_record_is_not_written_through_a_link(single: Daemon, directory: Path) -> None:
    precious = single.directory / "precious"
    precious.write_text("precious")
    (single.state_dir / "exits" / "1.1.tmp").symlink_to(precious)
    job_id = single.enqueue(f"until test -e {directory}/gate; do sleep 0.01; done; exit 5", max_retries=1)
    single.worker_of(job_id)
    single.kill()
    (directory / "gate").touch()
    wait_for((single.state_dir / "exits" / "1.1.json").exists, "the exit record")
    assert precious.read_text() == "precious"
    single.start()
    assert single.wait_state(job_id, "dead")["exit_code"] == 5
