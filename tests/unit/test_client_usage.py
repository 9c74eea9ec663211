"""The command line by itself: what is refused before a daemon is asked, and what it says when there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from queuectl_client.cli import COMMANDS, SECTIONS, cli
from tests.harness import CHECKOUT, Daemon


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket that nobody listens on, which the commands are pointed to."""
    path = tmp_path / "none.sock"
    monkeypatch.setenv("QUEUECTL_SOCKET", str(path))
    return path


def queuectl(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="queuectl")


def process(
    *arguments: str | bytes, cwd: Path | None = None, env: dict[bytes, bytes] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "queuectl_client", *arguments],
        cwd=cwd,
        env={**os.environb, b"PYTHONPATH": os.fsencode(CHECKOUT), **(env or {})},
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it."""
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                found = command.get_command(ctx, name)
                assert found is not None
                yield from leaves(found, (*path, name))
    else:
        yield path, command


LEAVES = dict(leaves(cli))


def test_all_commands_of_the_contract_are_there() -> None:
    assert {" ".join(path) for path in LEAVES} >= {
        *("enqueue", "run", "status", "list", "show", "logs", "wait", "cancel", "retry"),
        *("dlq list", "dlq retry", "dlq purge", "config list", "config get", "config set", "config unset"),
        *("worker start", "worker stop", "worker list"),
        *("daemon start", "daemon stop", "daemon status", "daemon reload"),
        *("service install", "service uninstall", "completion install"),
    }


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_has_examples_and_they_name_the_command(path: tuple[str, ...], nowhere: Path) -> None:
    result = queuectl(*path, "--help")
    assert result.exit_code == 0
    text = result.output.split("Examples:\n")[1]
    assert f"queuectl {' '.join(path)}" in text or "--socket" in text


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    for parameter in LEAVES[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("path", [path for path in LEAVES if path[0] not in {"service", "completion"}], ids=" ".join)
def test_whatever_prints_an_answer_can_print_json(path: tuple[str, ...]) -> None:
    # What `run` prints is the job's output; start, stop and reload of a daemon say a sentence.
    if path[0] == "run" or path in {("daemon", "start"), ("daemon", "stop"), ("daemon", "reload")}:
        return
    assert "--json" in [option for parameter in LEAVES[path].params for option in parameter.opts]


def test_the_table_says_what_the_commands_are(nowhere: Path) -> None:
    result = queuectl("--help")
    assert result.exit_code == 0
    for section, entries in SECTIONS.items():
        assert f"{section}:" in result.output
        for name, entry in entries.items():
            assert f"  {name} " in result.output
            assert entry.summary in " ".join(result.output.split())


def test_version() -> None:
    from queuectl_protocol.version import __version__

    assert queuectl("--version").output == f"queuectl {__version__}\n"


USAGE: list[tuple[list[str], str]] = [
    (["nosuch"], "no command"),
    (["statsu"], "did you mean `status`"),
    (["--nosuch"], "no such option"),
    (["--socket", "", "status"], "path of a socket"),
    (["enqueue"], "nothing to enqueue"),
    (["enqueue", "echo", "hi"], "'echo' is not JSON; put `--` before a program: queuectl enqueue -- echo hi"),
    (["enqueue", '"echo hi"'], 'is JSON, but not a job, which looks like {"command": "echo hello"}; put `--` before'),
    (["enqueue", "ls", "-l"], "queuectl enqueue -- ls -l"),
    (["enqueue", "--"], "`argv` is empty"),
    (["enqueue", "-c", ""], "`command` is empty"),
    (["enqueue", "-c", "a", "--", "b"], "give one of"),
    (["enqueue", "{}", "--", "b"], "give one of"),
    (["enqueue", "{}", "{}"], "one JSON text"),
    (["enqueue", "{"], "not JSON"),
    (["enqueue", '{"command": "a", "nosuch": 1}'], "unknown field `nosuch`"),
    (["enqueue", '{"command": "a", "env": {"A": "x"}}', "--env", "A=b"], "belong to a command line"),
    (["enqueue", '[{"command": "a"}]', "--id", "x"], "--id is for one job"),
    (["enqueue", "--file", "f", "--id", "x"], "--id is for one job"),
    (["enqueue", "--file", "/no/such/file"], "No such file"),
    (["enqueue", "--file", "/"], "is a directory"),
    (["enqueue", "--priority", "high", "--", "a"], "--priority"),
    (["enqueue", "--priority", "99999999999", "--", "a"], "`priority`"),
    (["enqueue", "--max-retries=-1", "--", "a"], "`max_retries`"),
    (["enqueue", "--timeout=-1", "--", "a"], "not a duration"),
    (["enqueue", "--timeout", "nan", "--", "a"], "not a duration"),
    (["enqueue", "--timeout", "0.0001", "--", "a"], "`timeout`"),
    (["enqueue", "--delay", "9999999d", "--", "a"], "`delay`"),
    (["enqueue", "--id", "a b", "--", "a"], "`id`"),
    (["enqueue", "--id", "x" * 129, "--", "a"], "`id`"),
    (["enqueue", "--queue", "", "--", "a"], "`queue`"),
    (["enqueue", "--env", "novalue", "--", "a"], "NAME=VALUE"),
    (["enqueue", "--env", "=x", "--", "a"], "NAME=VALUE"),
    (["run"], "after `--`"),
    (["run", "echo", "hi"], "queuectl: put `--` before a program: queuectl run -- echo hi"),
    (["run", "ls", "-l"], "queuectl: put `--` before a program: queuectl run -- ls -l"),
    (["run", "-c", "a", "--", "b"], "after `--`"),
    (["list", "--state", "nosuch"], "'pending'"),
    (["list", "--limit=-1"], "--limit"),
    (["show"], "JOB"),
    (["show", "a", "b"], "b"),
    (["logs", "a", "--attempt", "0"], "--attempt"),
    (["wait"], "JOB"),
    (["wait", "a", "--timeout", "soon"], "not a duration"),
    (["cancel"], "give jobs, or --ids-from"),
    (["retry"], "give jobs, or --ids-from"),
    (["cancel", "--ids-from", "-", "a"], "not both"),
    (["retry", "--ids-from", "-", "a"], "not both"),
    (["dlq", "retry"], "--all"),
    (["dlq", "retry", "a", "--all"], "--all"),
    (["dlq", "purge"], "--all"),
    (["dlq", "purge", "--yes"], "--all"),
    (["dlq", "purge", "a", "--all"], "--all"),
    (["config", "get"], "KEY"),
    (["config", "set", "a"], "VALUE"),
    (["worker", "start", "--count", "0"], "--count"),
    (["worker", "start", "--count", "many"], "--count"),
    (["daemon", "start", "--log-level", "loud"], "--log-level"),
    (["completion", "install", "tcsh"], "'bash'"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: " ".join(value)[:40] or "-")
def test_wrong_usage_is_a_sentence_and_status_2(arguments: list[str], message: str, nowhere: Path) -> None:
    result = queuectl(*arguments)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("queuectl: ")
    assert message in result.output
    assert "Traceback" not in result.output


NEEDS_A_DAEMON: list[list[str]] = [
    ["enqueue", "--", "true"],
    ["enqueue", '{"command": "true"}'],
    ["run", "--", "true"],
    ["status"],
    ["status", "--watch", "--json"],
    ["list"],
    ["show", "a"],
    ["logs", "a"],
    ["wait", "a"],
    ["cancel", "a"],
    ["retry", "a"],
    ["dlq", "list"],
    ["dlq", "retry", "--all"],
    ["dlq", "purge", "--all"],
    ["config", "list"],
    ["config", "get", "a"],
    ["config", "set", "a", "-1"],
    ["config", "unset", "a"],
    ["worker", "start"],
    ["worker", "stop"],
    ["worker", "list"],
    ["daemon", "stop"],
    ["daemon", "status"],
    ["daemon", "reload"],
]


@pytest.mark.parametrize("arguments", NEEDS_A_DAEMON, ids=" ".join)
def test_without_a_daemon_it_says_how_to_start_one(arguments: list[str], nowhere: Path) -> None:
    result = queuectl(*arguments)
    assert result.exit_code == 3, result.output
    assert result.output.startswith(f"queuectl: no daemon answers at {nowhere}\n")
    assert "queuectl daemon start" in result.output


def test_a_socket_that_was_left_behind_is_no_daemon(nowhere: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(nowhere))
    assert queuectl("status").exit_code == 3
    assert nowhere.exists()


def test_the_option_wins_over_the_environment(nowhere: Path, tmp_path: Path) -> None:
    result = queuectl("--socket", str(tmp_path / "other.sock"), "status")
    assert "other.sock" in result.output


def test_both_default_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUEUECTL_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    result = queuectl("status")
    if result.exit_code == 0:  # a system daemon runs on this machine
        pytest.skip("a daemon listens on the system's socket")
    assert f"{tmp_path}/queuectl/queuectl.sock or /run/queuectl/queuectl.sock" in result.output


def test_a_deep_socket_path_is_no_problem_but_a_long_name_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    assert queuectl("--socket", str(deep / "sock"), "status").exit_code == 3
    result = queuectl("--socket", str(deep / ("s" * 120)), "status")
    assert result.exit_code == 2
    assert "too long" in result.output


@pytest.mark.parametrize("words", ["queuectl show ", "queuectl config get ", "queuectl worker stop "])
def test_completion_without_a_daemon_is_silent(words: str, nowhere: Path) -> None:
    env = {"_QUEUECTL_COMPLETE": "bash_line", "QUEUECTL_LINE": words}
    result = CliRunner().invoke(cli, [], prog_name="queuectl", env=env)
    assert result.exit_code == 0
    assert not result.output.strip()


def test_commands_complete_without_being_imported(nowhere: Path) -> None:
    env = {"_QUEUECTL_COMPLETE": "bash_line", "QUEUECTL_LINE": "A=1 queuectl "}
    result = CliRunner().invoke(cli, [], prog_name="queuectl", env=env)
    assert [line.split("\t")[:2] for line in result.output.splitlines()] == [["plain", name] for name in COMMANDS]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = queuectl("completion", shell)
    assert result.exit_code == 0
    assert "_QUEUECTL_COMPLETE" in result.output


# --- as a process ---------------------------------------------------------------------------------------------------


def test_what_is_not_utf_8_is_refused_by_name(nowhere: Path) -> None:
    for arguments in ([b"--", b"echo", b"\xff"], [b"-c", b"echo \xff"], [b"--label", b"\xff", b"--", b"true"]):
        result = process("enqueue", *arguments)
        assert result.returncode == 2
        assert b"is not UTF-8" in result.stderr
    result = process("enqueue", b'{"command": "\xff"}')
    assert result.returncode == 2
    assert b"not JSON" in result.stderr


def test_a_variable_that_is_not_utf_8_is_left_out_with_a_remark(nowhere: Path) -> None:
    result = process("enqueue", "--", "true", env={b"ODD": b"\xff"})
    assert b"left out of the job's environment: ODD" in result.stderr
    assert result.returncode == 3
    result = process("enqueue", "--clean-env", "--", "true", env={b"ODD": b"\xff"})
    assert b"ODD" not in result.stderr


def test_a_directory_that_is_gone_is_named(nowhere: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = f'mkdir {gone} && cd {gone} && rmdir {gone} && exec "$0" -m queuectl_client enqueue -- true'
    result = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert b"current directory does not exist" in result.stderr


def test_errors_hold_no_escape_sequences(nowhere: Path) -> None:
    for arguments in (
        ["\x1b[31m"],
        ["list", "--state", "\x1b[31m"],
        ["enqueue", "\x1b[31m"],
        ["--socket", "\x1b", "status"],
    ):
        result = process(*arguments)
        assert result.returncode in {2, 3}
        assert b"\x1b" not in result.stderr
        assert b"\\x1b" in result.stderr


def test_a_bad_first_line_of_a_file_says_that_nothing_is_acknowledged(nowhere: Path, tmp_path: Path) -> None:
    result = process("enqueue", "--file", "-", stdin=b'{"command": ""}\n')
    assert result.returncode == 2
    assert b"line 1: `command` is empty; acknowledged: 0 jobs" in result.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "queuectl_client", "--help"],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert result.returncode == 141
    assert result.stderr == b""


def test_a_full_disk_under_the_output_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "queuectl_client", "--help"],
            env={**os.environ, "PYTHONPATH": CHECKOUT},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert result.returncode == 1
    assert b"No space left on device" in result.stderr
    assert b"Traceback" not in result.stderr


HEAVY = {"rich", "asyncio", "platformdirs", "importlib.metadata", "subprocess", "queuectld", "logging", "hashlib"}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["enqueue", "--", "true"], ["enqueue", '{"command":"a"}']]
)
def test_a_command_imports_no_more_than_it_needs(arguments: list[str], daemon: Daemon) -> None:
    code = "import sys\nfrom queuectl_client.cli import cli\ntry:\n    cli.main(sys.argv[1:])\nfinally:\n"
    code += "    print(*sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**daemon.environment, "QUEUECTL_SOCKET": str(daemon.socket)},
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    loaded = set(result.stderr.splitlines()[-1].split())
    assert "queuectl_client.cli" in loaded
    assert not loaded & HEAVY
    if arguments[0].startswith("--"):
        assert "msgspec" not in loaded
