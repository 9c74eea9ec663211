"""Bad input on the command line: one sentence, a hint, the right exit status, and nothing is changed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import shell_environment
from tests.harness import CLIENT, Daemon, running_daemon


@pytest.fixture(scope="module")
def standing() -> Iterator[Daemon]:
    """One daemon for all: none of what is tried here may change it. It has no workers, and one pending job, `taken`."""
    with (
        tempfile.TemporaryDirectory(prefix="qctl-", ignore_cleanup_errors=True) as path,
        running_daemon(Path(path)) as daemon,
    ):
        daemon.enqueue("echo first", id="taken")
        yield daemon


def everything(daemon: Daemon) -> object:
    """All that a person could have changed."""
    jobs = daemon.call("job.list", limit=1000)["jobs"]
    return jobs, daemon.call("status.get")["counts"], daemon.call("config.list"), daemon.call("worker.list")


def refused(daemon: Daemon, arguments: tuple[str, ...], status: int, stdin: str | None = None) -> str:
    """Run what must be refused; the error."""
    before = everything(daemon)
    done = daemon.queuectl(*arguments, stdin=stdin, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("queuectl: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, "one sentence, and one hint"
    assert everything(daemon) == before
    return done.stderr


FIELDS = "`queuectl enqueue --help` names the fields"
LOOKS = 'a job looks like {"command": "echo hello"}'

BAD_JOBS = [
    ("{", "not JSON", LOOKS),
    ('{"command": "true"} x', "not JSON", LOOKS),
    ('{"command": "true", "priority": NaN}', "not JSON", LOOKS),
    ('{"command": "true", "timeout": Infinity}', "not JSON", LOOKS),
    ("[1]", "job 0 of the array (counted from 0): expected an object, got a whole number", FIELDS),
    ('[{"command": "true"}, "true"]', "job 1 of the array (counted from 0): expected an object, got a string", FIELDS),
    ("[]", "the array holds no job", FIELDS),
    ('{"command": "true", "comand": "x"}', "unknown field `comand`", FIELDS),
    ('{"command": ["true"]}', "`command`", FIELDS),
    ('{"argv": "true"}', "`argv`", FIELDS),
    ('{"command": "true", "priority": "high"}', "`priority`", FIELDS),
    ('{"command": "true", "priority": 1.5}', "`priority`", FIELDS),
    ('{"command": "true", "env": {"A": 1}}', "`env", FIELDS),
    ('{"command": ""}', "`command` is empty", FIELDS),
    ('{"command": "  \\n"}', "`command` is empty", FIELDS),
    ('{"argv": []}', "`argv` is empty", FIELDS),
    ('{"command": "a\\u0000b"}', "`command` has a NUL byte in it", FIELDS),
    ('{"argv": ["a", "b\\u0000"]}', "`argv` has a NUL byte in it", FIELDS),
    ('{"command": "a", "argv": ["b"]}', "exactly one of `command` and `argv`", FIELDS),
    ("{}", "exactly one of `command` and `argv`", FIELDS),
    ('{"command": "a", "max_retries": -1}', "`max_retries`", FIELDS),
    ('{"command": "a", "max_retries": 1000000}', "`max_retries`", FIELDS),
    ('{"command": "a", "priority": 1e400}', "priority", FIELDS),
    ('{"command": "a", "priority": 99999999999999999999999}', "`priority`", FIELDS),
    ('{"command": "a", "timeout": -0.5}', "`timeout`", FIELDS),
    ('{"command": "a", "timeout": 1e300}', "`timeout`", FIELDS),
    ('{"command": "a", "timeout": 0.0001}', "`timeout` is 0 (none) or at least 0.01 seconds", FIELDS),
    ('{"command": "a", "delay": -1}', "`delay`", FIELDS),
    ('{"command": "a", "id": "a b"}', "`id`", FIELDS),
    ('{"command": "a", "id": "ä"}', "`id`", FIELDS),
    ('{"command": "a", "id": "x/y"}', "`id`", FIELDS),
    ('{"command": "a", "id": ""}', "`id`", FIELDS),
    ('{"command": "a", "id": "%s"}' % ("x" * 129), "`id`", FIELDS),
    ('{"command": "a", "queue": "a b"}', "`queue`", FIELDS),
    ('{"command": "a", "label": "%s"}' % ("x" * 201), "`label`", FIELDS),
    ('{"command": "a", "cwd": "relative"}', "`cwd` is not an absolute path", FIELDS),
]


@pytest.mark.parametrize(("text", "message", "hint"), BAD_JOBS, ids=[text[:50] for text, *_ in BAD_JOBS])
def test_a_bad_job(standing: Daemon, text: str, message: str, hint: str) -> None:
    error = refused(standing, ("enqueue", text), 2)
    assert message in error
    assert hint in error


REFUSED = [
    (("enqueue", "5"), 2, "put `--` before a program"),
    (("enqueue", '"true"'), 2, "put `--` before a program"),
    (("enqueue", "--id", "taken", "-c", "echo first"), 1, "differs in `cwd` and `exact_env`"),
    (
        ("enqueue", '{"id": "taken", "command": "echo other"}'),
        1,
        "job taken is there already, and differs in `command`",
    ),
    (("enqueue", '[{"command": "true"}, {"id": "taken", "command": "x"}]'), 1, "differs in `command`"),
    (("enqueue", '[{"id": "a", "command": "b"}, {"id": "a", "command": "c"}]'), 1, "a"),
    (("list", "--state", "nosuch"), 2, "'nosuch'"),
    (("show", "nosuch"), 1, "there is no job nosuch"),
    (("show", "a b"), 1, "a b"),
    (("logs", "nosuch"), 1, "there is no job nosuch"),
    (("logs", "taken", "--attempt", "3"), 1, "job taken has no attempt 3"),
    (("wait", "taken", "nosuch"), 1, "there is no job nosuch"),
    (("cancel", "taken", "nosuch"), 1, "there is no job nosuch"),
    (("retry", "taken"), 1, "taken"),
    (("retry", "nosuch"), 1, "there is no job nosuch"),
    (("dlq", "retry", "taken"), 1, "job taken is not in the dead letter queue"),
    (("dlq", "purge", "taken"), 1, "job taken is not in the dead letter queue"),
    (("dlq", "purge", "nosuch"), 1, "there is no job nosuch"),
    (("config", "get", "nosuch"), 1, "there is no setting `nosuch`"),
    (("config", "set", "nosuch", "1"), 1, "there is no setting `nosuch`"),
    (("config", "unset", "nosuch"), 1, "there is no setting `nosuch`"),
    (("config", "set", "max_retries", "-1"), 1, "`max_retries` is a whole number from 0 to 10000, not `-1`"),
    (("config", "set", "max_retries", "2.5"), 1, "`max_retries` is a whole number"),
    (("config", "set", "max_retries", "many"), 1, "`max_retries` is a whole number"),
    (("config", "set", "backoff_base", "nan"), 1, "`backoff_base` is a number from 0 to 1000, not `nan`"),
    (("config", "set", "backoff_base", "1001"), 1, "`backoff_base` is a number from 0 to 1000"),
    (("config", "set", "backoff_jitter", "1.1"), 1, "`backoff_jitter` is a number from 0 to 1"),
    (("config", "set", "heartbeat_interval", "60"), 1, "heartbeat_timeout"),  # it would be silent for longer
    (("worker", "stop", "w99"), 1, "there is no worker w99"),
    (("worker", "stop", "W 9"), 1, "may hold only lowercase letters, digits and `-`"),
    (("worker", "start", "--count", "5000"), 2, "5000"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "message"), REFUSED, ids=[" ".join(arguments)[:60] for arguments, *_ in REFUSED]
)
def test_a_bad_request(standing: Daemon, arguments: tuple[str, ...], status: int, message: str) -> None:
    error = refused(standing, arguments, status)
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("show", "nosuch"), "`queuectl list --state all` shows all jobs"),
        (("config", "get", "nosuch"), "`queuectl config list` shows all settings"),
        (("worker", "stop", "w99"), "`queuectl worker list` shows them"),
        (("dlq", "retry", "taken"), "`queuectl dlq list` shows those that are"),
        (("logs", "taken", "--attempt", "3"), "`queuectl show` lists them"),
        (("list", "--state", "nosuch"), "`queuectl list --help` shows how it is used"),
        (("enqueue", '{"id": "taken", "command": "other"}'), "nothing was enqueued"),
    ],
)
def test_the_hint_says_what_to_do(standing: Daemon, arguments: tuple[str, ...], hint: str) -> None:
    error = refused(standing, arguments, 2 if arguments[0] == "list" else 1)
    assert error.splitlines()[1] == f"  hint: {hint}"


def test_a_prefix_of_several_jobs_names_some(daemon: Daemon) -> None:
    for name in ("build-1", "build-2"):
        daemon.enqueue("true", id=name)
    error = refused(daemon, ("cancel", "build"), 1)
    assert "build-1" in error
    assert "build-2" in error


@pytest.mark.parametrize("escape", ["\x1b[2J", "\x9b2J", "\u202e", "\r\n", "\x07"])
def test_an_error_shows_what_a_terminal_would_obey_as_an_escape(standing: Daemon, escape: str) -> None:
    for arguments, status in ((("show", escape), 1), (("config", "get", escape), 1), (("list", "--state", escape), 2)):
        error = refused(standing, arguments, status)
        assert not [character for character in error if not (character.isprintable() or character == "\n")]
    error = refused(standing, ("enqueue", f'{{"command": "true", {escape!r}: 1}}'.replace("'", '"')), 2)
    assert not [character for character in error if not (character.isprintable() or character == "\n")]


# --- a daemon that does not come up ---------------------------------------------------------------------------------


def start(directory: Path, state: Path) -> str:
    """The error of a daemon that can't start with this state directory."""
    done = subprocess.run(
        [*CLIENT, "--socket", str(directory / "sock"), "daemon", "start", "--state-dir", str(state)],
        env=shell_environment(directory), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (directory / "sock").exists()
    return done.stderr


def test_a_state_directory_that_is_not_writable(directory: Path) -> None:
    assert "can't write to the state directory /proc/queuectl" in start(directory, Path("/proc/queuectl"))


def test_a_file_as_state_directory(directory: Path) -> None:
    (directory / "state").touch()
    done = subprocess.run(
        [*CLIENT, "--socket", str(directory / "sock"), "daemon", "start", "--state-dir", str(directory / "state")],
        env=shell_environment(directory), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is a file" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else(directory: Path) -> None:
    state = directory / "state"
    state.mkdir(mode=0o755)
    os.chown(state, 65534, 65534)
    error = start(directory, state)
    assert "belongs to another user (UID 65534)" in error
    assert "as that user" in error
    assert not [*state.iterdir()]


def test_a_state_directory_that_another_daemon_has(daemon: Daemon, directory: Path) -> None:
    """It does not answer: where it listens was removed, and it is stopped before it notices."""
    os.kill(daemon.pid, signal.SIGSTOP)
    daemon.socket.unlink()
    (directory / "other").mkdir()
    error = start(directory / "other", daemon.state_dir)
    os.kill(daemon.pid, signal.SIGCONT)
    assert f"PID {daemon.pid}" in error.splitlines()[0]
    assert f"listens on {daemon.socket}" in error.splitlines()[0]
    assert "`queuectl daemon stop` ends it" in error.splitlines()[1]
