"""queuectl under a real systemd, put there as a person does it: `queuectl service install`, then what that says."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import processes_with
from tests.systemd.machine import PREFIX, QUEUECTL, Machine, eventually, prepare, why_not

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

UNITS = ("queuectld.socket", "queuectld.service")
NEXT = "systemctl daemon-reload && systemctl enable --now queuectld.socket queuectld.service"
SCRATCH = "/var/tmp/test"
"""On the booted machine, for jobs and tests to leave each other files in. Everybody may write there."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := why_not():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("booted")
    (directory / "inject").mkdir()
    prepare(directory / "inject")
    machine = Machine(directory)
    try:
        assert machine.state in {"running", "degraded"}  # a unit of this machine's own may fail in the overlay
        for user in ("alice", "bob", "carol"):
            machine.run("useradd", "--create-home", "--shell", "/bin/bash", user)
        yield machine
    finally:
        machine.cut()


class Service:
    """queuectld as a unit of systemd, and queuectl as its user's client."""

    def __init__(self, machine: Machine, user: str = "root") -> None:
        self.machine = machine
        self.user = user
        self._systemctl = ("systemctl",) if user == "root" else ("systemctl", "--user")

    def systemctl(self, *arguments: str, status: int | None = 0) -> str:
        return self.machine.run(*self._systemctl, *arguments, status=status, user=self.user).strip()

    def queuectl(self, *arguments: str, status: int | None = 0) -> str:
        return self.machine.run(QUEUECTL, *arguments, status=status, user=self.user).strip()

    def pid(self) -> int:
        """Of the daemon; 0 if there is none."""
        return int(self.systemctl("show", "--property=MainPID", "--value", "queuectld.service"))

    def state(self) -> str:
        return self.systemctl("is-active", "queuectld.service", status=None)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.queuectl("status", "--json"))
        return status

    def reload(self, generation: int) -> None:
        """When it returns, the daemon has re-executed itself for the `generation`th time."""
        self.systemctl("reload", "queuectld.service")
        assert json.loads(self.queuectl("daemon", "status", "--json"))["generation"] == generation
        eventually(lambda: self.state() == "active", "systemd was told that it is ready again")

    def show(self, job: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.queuectl("show", "--json", job))
        return shown

    def drop_in(self, unit: str, content: str) -> None:
        """What `systemctl edit` writes."""
        self.machine.write(f"/run/systemd/system/{unit}.d/test.conf", content)
        self.systemctl("daemon-reload")

    def start_job(self, name: str) -> int:
        """A job that runs until `finish(name)`, and then exits 7; its PID, once it runs."""
        script = f"echo $$ >{SCRATCH}/{name}.new && mv {SCRATCH}/{name}.new {SCRATCH}/{name}.pid; "
        script += f"while [ ! -e {SCRATCH}/{name}.go ]; do sleep 0.05; done; exit 7"
        self.queuectl("enqueue", "--id", name, "--max-retries", "1", "-c", script)
        file = f"{SCRATCH}/{name}.pid"
        return int(eventually(lambda: self.machine.sh(f"cat {file} 2>&-", status=None), f"job {name} runs"))

    def finish(self, name: str) -> None:
        self.machine.run("touch", f"{SCRATCH}/{name}.go")

    def assert_ran_once(self, name: str, pid: int) -> None:
        """The job has ended by itself, and its first execution (`pid`) was its only one."""
        self.queuectl("wait", name, status=1)
        shown = self.show(name)
        assert (shown["state"], shown["attempts"], shown["exit_code"]) == ("dead", 1, 7)
        assert self.machine.sh(f"cat {SCRATCH}/{name}.pid") == str(pid)

    def lives(self, pid: int) -> bool:
        return self.machine.sh(f"kill -0 {pid} 2>&- && echo yes", status=None) == "yes"

    def restarted(self, before: int) -> int:
        """The daemon's PID, once systemd has started another one than `before` and it is ready."""
        eventually(lambda: self.pid() not in (0, before) and self.state() == "active", "systemd restarted the daemon")
        return self.pid()


def _fresh(machine: Machine) -> None:
    """As after a boot: nothing runs, nothing is kept, and no drop-in is left of the test before."""
    machine.run("systemctl", "stop", *UNITS, status=None)
    machine.run(
        "sh",
        "-c",
        "find /sys/fs/cgroup/system.slice/queuectld.service -name cgroup.procs -exec cat {} + | xargs -r kill -9",
        status=None,
    )
    machine.run(
        "rm",
        "-rf",
        "/var/lib/queuectl",
        "/run/systemd/system/queuectld.service.d",
        "/run/systemd/system/queuectld.socket.d",
        SCRATCH,
    )
    machine.run("mkdir", "-m", "1777", SCRATCH)


@pytest.fixture
def service(machine: Machine) -> Service:
    """Installed, its socket listening, the daemon not started yet."""
    _fresh(machine)
    machine.run(QUEUECTL, "service", "install")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")
    machine.run("systemctl", "start", "queuectld.socket")
    return Service(machine)


def test_install_and_the_command_that_it_says(machine: Machine) -> None:
    _fresh(machine)
    machine.run("systemctl", "disable", *UNITS, status=None)
    machine.run(QUEUECTL, "service", "uninstall")
    said = machine.run(QUEUECTL, "service", "install")
    assert f"\nNext: {NEXT}\n" in said
    assert machine.errors == ""  # nothing to warn of: /opt is within reach
    machine.sh(NEXT)
    service = Service(machine)
    assert [service.systemctl(ask, unit) for unit in UNITS for ask in ("is-active", "is-enabled")] == [
        "active",
        "enabled",
    ] * 2
    assert machine.sh("getent passwd queuectl | cut -d: -f6,7") == "/var/lib/queuectl/home:/usr/sbin/nologin"
    assert machine.sh(
        "stat -c '%A %U:%G' /run/queuectl/queuectl.sock /var/lib/queuectl /var/lib/queuectl/queue.db"
    ) == ("srw-rw---- queuectl:queuectl\ndrwx------ queuectl:queuectl\n-rw------- queuectl:queuectl")
    daemon = service.status()["daemon"]
    assert (daemon["pid"], daemon["containment"]) == (service.pid(), "cgroup")
    assert machine.sh(f"ps -o user= -p {service.pid()}") == "queuectl"
    assert "0 jobs running" in service.systemctl("show", "--property=StatusText", "--value", "queuectld.service")


def test_the_first_client_starts_the_daemon(service: Service) -> None:
    assert service.state() == "inactive"
    assert service.status()["counts"]["pending"] == 0
    assert service.state() == "active"


def test_a_job_runs_as_an_ordinary_command(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "1")
    # What a hardened unit could take away from it, and what systemd's own variables could tell it.
    checks = f"""set -e
        test "$(id -un):$(id -gn):$PWD" = queuectl:queuectl:/var/lib/queuectl/home
        ! env | grep -E '^(NOTIFY_|LISTEN_|WATCHDOG_|INVOCATION_|JOURNAL_|SYSTEMD_|STATE_|CONFIGURATION_|QUEUECTLD)'
        test "$(ulimit -Sn)" -le 1024
        grep -q '^0::/system.slice/queuectld.service/attempt-' /proc/self/cgroup
        ! mkdir /sys/fs/cgroup/system.slice/x
        mkdir -p tree/shared; chmod g+s tree/shared; echo text >tree/file; ln -s file tree/link
        cp -a tree copy; tar czf tree.tar.gz tree; tar xzf tree.tar.gz -C copy; nice -n 5 true; echo x >/tmp/queuectl-x
        rm /tmp/queuectl-x; git init -q repository
        git -C repository -c user.name=a -c user.email=b commit -q --allow-empty -m c
        {PREFIX}/bin/python - <<'END'
import multiprocessing, socket, sqlite3
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, 2]) == [1, 2]
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    socket.getaddrinfo("localhost", 80)
sqlite3.connect("test.db").execute("CREATE TABLE t (x)")
END
        test -d /root -a ! -r /root/.bashrc"""
    service.machine.write(f"{SCRATCH}/checks.sh", checks)
    service.machine.run("chmod", "755", f"{SCRATCH}/checks.sh")
    done = service.queuectl("enqueue", json.dumps({"id": "checks", "command": f"sh {SCRATCH}/checks.sh"}))
    assert done == "checks"
    service.queuectl("wait", "checks", status=None)
    shown = service.show("checks")
    assert shown["state"] == "completed", service.queuectl("logs", "--attempt", "1", "checks")


def test_members_of_the_group_may_use_the_queue_and_nobody_else(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "1")
    service.machine.run("usermod", "--append", "--groups", "queuectl", "alice")
    assert service.machine.run(QUEUECTL, "run", "--cwd", "/", "--", "id", "-un", user="alice") == "queuectl\n"
    service.machine.run(QUEUECTL, "status", user="bob", status=3)


def test_a_group_that_the_administrator_chose_keeps_the_socket(service: Service) -> None:
    service.machine.run("groupadd", "--force", "queuers")
    service.machine.run("usermod", "--append", "--groups", "queuers", "bob")
    service.drop_in("queuectld.socket", "[Socket]\nSocketGroup=queuers\n")
    service.systemctl("restart", "queuectld.socket")
    service.machine.run(QUEUECTL, "status", user="bob")
    assert service.state() == "active"
    assert service.machine.sh("stat -c %G /run/queuectl/queuectl.sock") == "queuers"


def test_stop_ends_running_jobs_and_puts_them_back(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "1")
    service.queuectl("config", "set", "shutdown_timeout", "0.1")
    job = service.start_job("long")
    service.systemctl("stop", "queuectld.service", "queuectld.socket")
    assert service.state() == "inactive"  # not "failed"
    assert not service.lives(job)
    assert (
        service.machine.sh("ls -d /sys/fs/cgroup/system.slice/queuectld.service 2>&-", status=None) == ""
    )  # nobody is left

    service.machine.run("rm", f"{SCRATCH}/long.pid")
    service.systemctl("start", "queuectld.service")
    eventually(lambda: service.machine.sh(f"cat {SCRATCH}/long.pid 2>&-", status=None), "the job runs again")
    service.finish("long")
    service.queuectl("wait", "long", status=1)
    shown = service.show("long")
    assert (shown["state"], shown["attempts"], shown["exit_code"]) == ("dead", 1, 7)


def test_stop_lets_a_running_job_finish_in_time(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "1")
    job = service.start_job("soon")
    service.systemctl("stop", "--no-block", "queuectld.service")
    eventually(lambda: service.state() == "deactivating", "the daemon is stopping")
    service.finish("soon")
    eventually(lambda: service.state() == "inactive", "the daemon has stopped")
    service.systemctl("start", "queuectld.service")
    service.assert_ran_once("soon", job)


def test_the_journal_has_a_priority_for_each_line_and_no_second_time(service: Service) -> None:
    service.status()
    service.drop_in("queuectld.service", "[Service]\nEnvironment=QUEUECTL_SOCKET_GROUP=nobody-of-that-name\n")
    service.systemctl("restart", "queuectld.service", status=1)
    lines = eventually(lambda: _journal(service.machine, "3"), "the refusal is in the journal")
    assert all("nobody-of-that-name" in line or "hint" in line for line in lines)
    ready = next(line for line in _journal(service.machine, "6") if "ready" in line)
    assert ready.startswith("info    ready version=")


def _journal(machine: Machine, priority: str) -> list[str]:
    """What the daemon itself wrote with that priority."""
    ask = ("journalctl", "--output=cat", "_COMM=queuectld", f"PRIORITY={priority}")
    return [line for line in machine.run(*ask, status=None).splitlines() if not line.startswith("--")]


def test_a_stop_may_take_longer_than_the_unit_says_if_the_settings_do(service: Service) -> None:
    service.drop_in("queuectld.service", "[Service]\nTimeoutStopSec=6s\n")
    service.queuectl("worker", "start", "--count", "1")
    service.queuectl("config", "set", "shutdown_timeout", "20")
    service.start_job("patient")
    before = service.machine.sh("date +%s.%N")
    service.systemctl("stop", "--no-block", "queuectld.service")
    # No condition tells "systemd's own patience is over": only its clock does.
    eventually(lambda: float(service.machine.sh("date +%s.%N")) > float(before) + 12, "twice TimeoutStopSec has passed")
    assert service.state() == "deactivating"
    service.finish("patient")
    eventually(lambda: service.state() == "inactive", "the daemon has stopped")


def test_reload_keeps_the_process_and_the_jobs(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "1")
    job, daemon = service.start_job("during"), service.pid()
    for generation in (1, 2):
        service.reload(generation)
    assert service.pid() == daemon
    assert service.lives(job)
    service.finish("during")
    service.assert_ran_once("during", job)


def test_reload_finds_the_daemon_at_another_socket(service: Service) -> None:
    service.drop_in("queuectld.socket", "[Socket]\nListenStream=\nListenStream=/run/elsewhere/sock\n")
    service.systemctl("restart", "queuectld.socket")
    service.systemctl("start", "queuectld.service")
    service.systemctl("reload", "queuectld.service")
    status = service.queuectl("--socket", "/run/elsewhere/sock", "daemon", "status", "--json")
    assert json.loads(status)["generation"] == 1


def test_jobs_survive_a_killed_daemon_and_what_they_keep_in_tmp_too(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "2")
    job, daemon = service.start_job("survivor"), service.pid()
    keeper = f"echo text >/tmp/kept; echo text >/dev/shm/kept; touch {SCRATCH}/kept; "
    keeper += (
        f"while [ ! -e {SCRATCH}/look ]; do sleep 0.05; done; cat /tmp/kept /dev/shm/kept; rm /tmp/kept /dev/shm/kept"
    )
    service.queuectl("enqueue", "--id", "keeper", "--max-retries", "1", "-c", keeper)
    eventually(lambda: service.machine.sh(f"ls {SCRATCH}/kept 2>&-", status=None), "the keeper runs")

    service.machine.run("kill", "-KILL", str(daemon))
    service.restarted(daemon)
    assert service.lives(job)
    service.finish("survivor")
    service.machine.run("touch", f"{SCRATCH}/look")
    service.assert_ran_once("survivor", job)
    service.queuectl("wait", "keeper")
    assert service.queuectl("logs", "keeper") == "text\ntext"
    # And the workers are still good for the next one.
    assert service.queuectl("run", "--cwd", "/", "--", "echo", "next") == "next"
    assert len(service.status()["workers"]) == 2


def test_a_job_that_ends_while_no_daemon_runs_keeps_its_exit_code(service: Service) -> None:
    service.drop_in("queuectld.service", "[Service]\nRestartSec=1h\n")
    service.queuectl("worker", "start", "--count", "1")
    job, daemon = service.start_job("alone"), service.pid()
    service.machine.run("kill", "-KILL", str(daemon))
    eventually(lambda: service.state() == "activating", "systemd waits to restart the daemon")
    service.finish("alone")
    eventually(lambda: not service.lives(job), "the job has ended")
    service.systemctl("restart", "queuectld.service")  # "start" would wait for the hour to pass
    service.assert_ran_once("alone", job)


def test_the_watchdog_replaces_a_daemon_that_hangs(service: Service) -> None:
    service.drop_in("queuectld.service", "[Service]\nWatchdogSec=6s\n")
    service.queuectl("worker", "start", "--count", "1")
    job, daemon = service.start_job("unhurt"), service.pid()
    service.machine.run("kill", "-STOP", str(daemon))
    service.restarted(daemon)
    assert service.lives(job)
    service.finish("unhurt")
    service.assert_ran_once("unhurt", job)


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A memory cgroup of this machine that has room for little; made outside, since inside there is no controller."""
    group = Path(f"/sys/fs/cgroup/memory/queuectl-hog-{os.getpid()}")
    if not group.parent.joinpath("memory.limit_in_bytes").exists():
        pytest.skip("no cgroup v1 memory controller to put a hog into")
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("50M")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(), "the hog's group is empty")
    group.rmdir()


def test_a_job_that_takes_all_memory_is_killed_alone(service: Service, small_memory: Path) -> None:
    service.queuectl("worker", "start", "--count", "2")
    daemon, other = service.pid(), service.start_job("other")
    mark = f"hog-{os.getpid()}"
    script = f"import os, time\nwhile not os.path.exists('{SCRATCH}/eat'): time.sleep(0.02)\nbytearray(10**9)"
    service.queuectl("enqueue", "--id", "hog", "--max-retries", "1", "--", "python3", "-c", script, mark)
    (hog,) = eventually(lambda: processes_with(f"{script}\0{mark}\0"), "the hog runs")
    (small_memory / "cgroup.procs").write_text(str(hog))
    service.machine.run("touch", f"{SCRATCH}/eat")
    service.queuectl("wait", "hog", status=1)
    shown = service.show("hog")
    assert (shown["state"], shown["exit_code"], shown["history"][0]["signal"]) == ("dead", 137, 9)
    assert service.pid() == daemon
    assert service.state() == "active"
    service.finish("other")
    service.assert_ran_once("other", other)


def test_a_stop_by_its_own_command_stays_a_stop_until_the_next_client(service: Service) -> None:
    service.queuectl("status")
    service.queuectl("daemon", "stop")
    assert service.state() == "inactive"
    service.queuectl("status")
    assert service.state() == "active"


def test_options_are_read_from_etc(service: Service) -> None:
    service.machine.write("/etc/queuectl/queuectld.toml", "workers = 3\n")
    try:
        assert len(service.status()["workers"]) == 3
    finally:
        service.machine.run("rm", "/etc/queuectl/queuectld.toml")


def test_restart_brings_queue_and_workers_back(service: Service) -> None:
    service.queuectl("worker", "start", "--count", "2")
    service.queuectl("enqueue", "--id", "later", "--delay", "1000", "--", "true")
    service.systemctl("restart", "queuectld.service")
    eventually(lambda: len(service.status()["workers"]) == 2, "the pool is as large as before")
    assert service.show("later")["state"] == "pending"


def test_a_program_whose_path_needs_escaping(service: Service) -> None:
    odd = Path("/opt/my queue 100%")
    service.machine.run("cp", "-a", str(PREFIX), str(odd))
    service.machine.run(QUEUECTL, "service", "install", "--queuectld", str(odd / "bin/queuectld"))
    service.systemctl("daemon-reload")
    assert service.status()["daemon"]["pid"] == service.pid()
    assert shlex.quote(str(odd)).strip("'") in service.machine.sh(f"tr '\\0' ' ' </proc/{service.pid()}/cmdline")


def test_uninstall_asks_for_a_stop_first(service: Service) -> None:
    service.systemctl("enable", "--now", *UNITS)
    service.queuectl("service", "uninstall", status=1)
    assert "systemctl disable --now queuectld.socket queuectld.service" in service.machine.errors
    assert service.state() == "active"
    service.systemctl("disable", "--now", *UNITS)
    service.queuectl("service", "uninstall")
    service.systemctl("daemon-reload")
    assert service.machine.sh("find /etc/systemd /etc/sysusers.d -name '*queuectl*'") == ""
    assert service.machine.sh("ls -A /var/lib/queuectl | head -1")  # jobs and logs stay


def test_a_daemon_of_ones_own(machine: Machine) -> None:
    """All of it once more for `systemctl --user`, with lingering, so that no login is needed."""
    _fresh(machine)
    service = Service(machine, user="carol")
    machine.run("loginctl", "enable-linger", "carol")
    uid = machine.run("id", "-u", "carol").strip()
    eventually(lambda: machine.sh(f"ls /run/user/{uid}/systemd/private 2>&-", status=None), "carol's systemd runs")
    said = service.queuectl("service", "install", "--user")
    following = "systemctl --user daemon-reload && systemctl --user enable --now queuectld.socket queuectld.service"
    assert f"\nNext: {following}\n" in said
    assert "loginctl enable-linger" in said
    machine.sh(following, user="carol")
    assert service.status()["daemon"]["socket"] == f"/run/user/{uid}/queuectl/queuectl.sock"
    assert service.status()["daemon"]["state_dir"] == "/home/carol/.local/state/queuectl"
    assert service.status()["daemon"]["containment"] == "cgroup"

    service.queuectl("worker", "start", "--count", "1")
    assert service.queuectl("run", "-c", "id -un; pwd") == "carol\n/home/carol"
    assert "/queuectld.service/attempt-" in service.queuectl("run", "-c", "cat /proc/self/cgroup")
    assert service.queuectl("run", "-c", "env | grep QUEUECTLD_ || echo none") == "none"
    job, daemon = service.start_job("mine"), service.pid()
    service.reload(1)
    assert service.pid() == daemon
    machine.run("kill", "-KILL", str(daemon))
    service.restarted(daemon)
    assert service.lives(job)
    service.finish("mine")
    service.assert_ran_once("mine", job)

    service.systemctl("disable", "--now", *UNITS)
    service.queuectl("service", "uninstall", "--user")
    assert machine.sh("find /home/carol/.config -type f -o -type l") == ""
