"""What a job sees: its session, descriptors, environment, signals; and what is said of one that can't start."""

from __future__ import annotations

import os
import pwd
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon

SYSTEMD = {
    "WATCHDOG_USEC": "60000000",
    "INVOCATION_ID": "0123456789abcdef",
    "JOURNAL_STREAM": "8:1234",
    "STATE_DIRECTORY": "/nonexistent/state",
    "RUNTIME_DIRECTORY": "/nonexistent/run",
    "LISTEN_FDNAMES": "stray",
    "DAEMON_SECRET": "leaked",
}

LOOK = f"exec {sys.executable} -c 'import os, json"


def run(daemon: Daemon, command: str, **fields: Any) -> str:
    """The output of a job that completes."""
    job_id = daemon.enqueue(command, max_retries=1, **fields)
    job = daemon.wait_state(job_id, "completed", "dead")
    assert job["state"] == "completed", (job["error"], daemon.output(job_id))
    return daemon.output(job_id)


def environment_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def status_of(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_it_leads_a_session_and_a_process_group_of_its_own(single: Daemon) -> None:
    pid, group, session, worker = run(
        single, f"{LOOK}; print(os.getpid(), os.getpgrp(), os.getsid(0), os.getppid())'"
    ).split()
    assert pid == group == session
    assert int(worker) == single.workers()[0]["pid"]
    assert int(session) not in (os.getsid(single.pid), os.getsid(int(worker)))


def test_standard_input_is_empty_and_output_is_the_log(single: Daemon) -> None:
    text = run(single, "readlink /proc/self/fd/0; cat; readlink /proc/self/fd/1 /proc/self/fd/2; echo err >&2")
    null, out, err, last = text.splitlines()
    assert null == "/dev/null"
    assert out == err
    assert Path(out).is_relative_to(single.state_dir / "logs")
    assert last == "err"


def test_the_clean_base_and_what_is_said_of_the_job(single: Daemon) -> None:
    job_id = single.enqueue("exec env", queue="lane", max_retries=4, env={"MINE": "a=b", "LANG": "de_DE.UTF-8"})
    single.wait_state(job_id, "completed")
    found = environment_of(single.output(job_id))
    user = pwd.getpwuid(os.getuid())
    lease = found.pop("QUEUECTL_LEASE")
    assert lease
    found.pop("PWD", None)  # of the shell's own making, as the next two
    found.pop("SHLVL", None)
    found.pop("_", None)
    assert found.pop("PATH").split(":")[-1] == "/bin"
    assert found == {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": "/bin/sh",
        "LANG": "de_DE.UTF-8",
        "MINE": "a=b",
        "QUEUECTL_JOB_ID": job_id,
        "QUEUECTL_ATTEMPT": "1",
        "QUEUECTL_MAX_RETRIES": "4",
        "QUEUECTL_QUEUE": "lane",
    }


def test_an_exact_environment_has_nothing_else(single: Daemon) -> None:
    (job_id,) = single.call(
        "job.enqueue", jobs=[{"argv": ["/usr/bin/env"], "exact_env": True, "env": {"ONLY": "this"}}]
    )["ids"]
    single.wait_state(job_id, "completed")
    found = environment_of(single.output(job_id))
    assert set(found) == {
        "ONLY", "QUEUECTL_JOB_ID", "QUEUECTL_ATTEMPT", "QUEUECTL_MAX_RETRIES", "QUEUECTL_QUEUE", "QUEUECTL_LEASE",
    }  # fmt: skip


def test_it_can_not_lie_about_itself(single: Daemon) -> None:
    text = run(single, "echo $QUEUECTL_JOB_ID", id="honest", env={"QUEUECTL_JOB_ID": "other", "QUEUECTL_LEASE": "x"})
    assert text == "honest\n"


def test_argv_is_looked_up_in_the_jobs_own_path(single: Daemon, directory: Path) -> None:
    program = directory / "bin" / "mine"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    job = {"argv": ["mine"], "env": {"PATH": f"{program.parent}:/usr/bin:/bin"}}
    (job_id,) = single.call("job.enqueue", jobs=[job])["ids"]
    assert single.wait_state(job_id, "completed")
    assert single.output(job_id) == "found\n"


def test_the_working_directory(single: Daemon, directory: Path) -> None:
    assert run(single, "pwd -P") == f"{Path(pwd.getpwuid(os.getuid()).pw_dir).resolve()}\n"
    assert run(single, "pwd -P", cwd=str(directory)) == f"{directory.resolve()}\n"


def start_leaky(daemon: Daemon, before: str = "") -> None:
    """Start a daemon that inherits much: systemd's variables, stray descriptors, odd signals, a soft limit, a mask."""
    daemon.environment.update(SYSTEMD)
    with daemon.log.open("ab") as log:
        program = (
            "import os, resource, signal, sys\n"
            "for name in ('stray', 'other'):\n"
            "    os.set_inheritable(os.open('/etc/passwd', os.O_RDONLY), True)\n"
            f"{before}\n"
            "os.environ['LISTEN_PID'], os.environ['LISTEN_FDS'] = '1', '1'\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'queuectld', *sys.argv[1:]])\n"
        )
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", program, "--state-dir", str(daemon.state_dir), "--socket", str(daemon.socket),
             *daemon.arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.environment, cwd="/",
        )  # fmt: skip


@pytest.fixture
def leaky(make_daemon: Callable[..., Daemon]) -> Callable[[str], Daemon]:
    def start(before: str = "") -> Daemon:
        daemon = make_daemon("--workers", "1")
        start_leaky(daemon, before)
        daemon.wait_ready()
        daemon.wait_workers(1)
        return daemon

    return start


def test_nothing_of_the_daemons_or_systemds_environment(leaky: Callable[[str], Daemon]) -> None:
    daemon = leaky("")
    names = set(environment_of(run(daemon, "exec env")))
    assert not names & {*SYSTEMD, "LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET", "PYTHONPATH", "QUEUECTL_TEST"}


def test_no_descriptor_but_its_three_and_the_locks(leaky: Callable[[str], Daemon]) -> None:
    daemon = leaky("")
    found = run(daemon, "for n in /proc/self/fd/*; do readlink $n; done; true").splitlines()
    (worker,) = daemon.workers()
    lock = str(daemon.state_dir / "workers" / f"{worker['id']}.lock")
    assert found[0] == "/dev/null"
    own = f"{lock.removesuffix('.lock')}.attempt.lock (deleted)"
    assert [target for target in found[1:] if not target.endswith(".log")] == [lock, own]


def test_descriptor_limit_is_that_of_the_daemons_starter(leaky: Callable[[str], Daemon]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = leaky(f"resource.setrlimit(resource.RLIMIT_NOFILE, (321, {hard}))")
    assert run(daemon, "ulimit -Sn; ulimit -Hn").split() == ["321", "unlimited" if hard < 0 else str(hard)]
    soft = Path(f"/proc/{daemon.pid}/limits").read_text().split("Max open files")[1].split()[0]
    assert int(soft) > 321, "the daemon itself has use for more"


def test_umask_is_that_of_the_daemons_starter(leaky: Callable[[str], Daemon]) -> None:
    assert run(leaky("os.umask(0o027)"), "umask").strip() == "0027"


LIBC_SIGNALS = 1 << 31 | 1 << 32
"""Signals 32 and 33 are the C library's own: if the tests' starter has them ignored, nobody can reset them."""


def test_signals_are_as_at_login(leaky: Callable[[str], Daemon]) -> None:
    daemon = leaky(
        "for number in (signal.SIGQUIT, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM})"
    )
    found = status_of(run(daemon, "exec cat /proc/self/status"))
    assert int(found["SigBlk"], 16) == 0
    assert int(found["SigIgn"], 16) & ~LIBC_SIGNALS == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD])
def test_no_signal_is_ignored_or_caught(single: Daemon, number: signal.Signals) -> None:
    found = status_of(run(single, "exec cat /proc/self/status"))
    bit = 1 << (number - 1)
    assert not int(found["SigIgn"], 16) & bit
    assert not int(found["SigCgt"], 16) & bit
    assert not int(found["SigBlk"], 16) & bit


# --- what can't start -----------------------------------------------------------------------------------------------


def failed(daemon: Daemon, **fields: Any) -> dict[str, Any]:
    (job_id,) = daemon.call("job.enqueue", jobs=[{"max_retries": 2, **fields}])["ids"]
    job = daemon.wait_state(job_id, "dead")
    assert [attempt["outcome"] for attempt in job["history"]] == ["failed", "failed"]
    return job


def test_a_missing_program(single: Daemon) -> None:
    job = failed(single, argv=["no-such-program", "x"])
    assert job["exit_code"] == 127
    assert "no-such-program" in job["error"]


def test_a_missing_working_directory(single: Daemon, directory: Path) -> None:
    job = failed(single, command="true", cwd=f"{directory}/gone")
    assert job["exit_code"] == 126
    assert f"{directory}/gone" in job["error"]
    assert "directory" in job["error"]


def test_a_file_as_working_directory(single: Daemon, directory: Path) -> None:
    (directory / "file").touch()
    job = failed(single, command="true", cwd=f"{directory}/file")
    assert job["exit_code"] == 126
    assert f"{directory}/file" in job["error"]


def test_a_program_that_may_not_be_executed(single: Daemon, directory: Path) -> None:
    plain = directory / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    job = failed(single, argv=[str(plain)])
    assert job["exit_code"] == 126
    assert str(plain) in job["error"]


def test_a_script_whose_interpreter_is_missing(single: Daemon, directory: Path) -> None:
    script = directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    job = failed(single, argv=[str(script)])
    assert job["exit_code"] in (126, 127)
    assert str(script) in job["error"]


def test_a_worker_goes_on_after_what_could_not_start(single: Daemon) -> None:
    worker = single.workers()[0]["id"]
    failed(single, argv=["no-such-program"])
    assert run(single, "echo fine") == "fine\n"
    assert single.workers()[0]["id"] == worker


def test_a_daemon_in_a_locale_without_utf_8_runs_everything_all_the_same(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("--workers", "1")
    daemon.environment.update({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    daemon.start()
    (job_id,) = daemon.call("job.enqueue", jobs=[{"argv": ["echo", "é日本🦆"], "env": {"É": "ü"}, "max_retries": 1}])[
        "ids"
    ]
    assert daemon.wait_state(job_id, "completed", "dead")["state"] == "completed"
    assert daemon.output(job_id) == "é日本🦆\n"
