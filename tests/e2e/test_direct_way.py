"""The five commands that go without click: the same output, messages and exit status as by click, and no imports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.client import Terminal, background, environment_of
from tests.harness import BY_CLICK, PATIENCE, Daemon

DIRECTLY = (sys.executable, "-P", "-m", "queuectl_client")
WAYS = {"directly": DIRECTLY, "by click": BY_CLICK}
COSTLY = {"click", "msgspec", "rich", "pathlib", "typing", "json", "re", "socket", "platformdirs"}


class Done(NamedTuple):
    status: int
    output: bytes
    errors: bytes


def call(way: str, daemon: Daemon, *arguments: str | bytes, shell: str = 'exec "$@"', **environment: str) -> Done:
    """Run the command in one of the ways; `shell` runs it as `"$@"`."""
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *WAYS[way], *arguments],
        env={**daemon.environment, "QUEUECTL_SOCKET": str(daemon.socket), **environment},
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def in_both_ways(daemon: Daemon, *arguments: str | bytes, shell: str = 'exec "$@"', **environment: str) -> Done:
    """What the command does, which is the same in both ways."""
    directly, by_click = (call(way, daemon, *arguments, shell=shell, **environment) for way in WAYS)
    assert timeless(directly) == timeless(by_click)
    return directly


def timeless(done: Done) -> Done:
    """Without what a table says of how long ago something was, nor how wide that column is."""
    output = re.sub(rb" +", b" ", re.sub(rb"now|[0-9]+ [smh] ago", b"", done.output))
    return done._replace(output=output)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["enqueue", "--id", "a", "--", "echo", "é", 'b "c"\\', "\n"], 0),
        (["enqueue", "--json", "--id", "a", "-c", "echo $HOME"], 0),
        (["enqueue", "--id", "a", "--clean-env", "--", "true"], 0),
        (["enqueue", "--id", "a", "--clean-env", "--env", "A=é", "--cwd", "/tmp", "--label", "ü", "--", "true"], 0),
        (["enqueue", "--id", "a", "--env", "A=1", "--queue=q", "--priority", "-5", "--timeout", "1.5m", "-c", "x"], 0),
        (["enqueue", "--id", "a", "--max-retries", "0", "--delay", "1d", "--cwd", "nowhere/..", "--", "true"], 0),
        (["enqueue", "--id", "a b", "--", "true"], 2),
        (["enqueue", "--priority", "1000000000", "--", "true"], 2),
        (["enqueue", "--timeout", "0.001", "--", "true"], 2),
        (["enqueue", "--queue", "", "--", "true"], 2),
        (["enqueue", "--label", "x" * 201, "--", "true"], 2),
        (["enqueue", "--env", "A", "--", "true"], 2),
        (["enqueue", "-c", " "], 2),
        (["enqueue", "--"], 2),
        (["enqueue", "--", ""], 2),
        (["enqueue", "--", b"\xff"], 2),
        (["enqueue", "--label", b"\xff", "--", "true"], 2),
        (["enqueue", "-c", "true", "--", "true"], 2),
        (["enqueue"], 2),
        (["enqueue", "--clean-env", "--", *["x" * 100_000] * 11], 2),
        (["wait", "nope"], 1),
        (["enqueue", "--id", "other", "--", "true"], 1),
        (["wait", "nope", "--timeout", "forever"], 2),
        (["wait", "x" * 200], 1),
        (["wait", b"\xff"], 2),
        (["cancel", "nope"], 1),
        (["cancel"], 2),
        (["list", "--queue", "no queue"], 1),
        (["list", "--limit", "-1"], 2),
        (["list"], 0),
        (["list", "--json"], 0),
        (["status", "--json"], 0),
        (["status"], 0),
        (["status", "--jso"], 2),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_both_ways_say_the_same(daemon: Daemon, arguments: list[str | bytes], status: int) -> None:
    """The second call with the same id is a success only because the job is the same in all of its fields."""
    daemon.enqueue("false", id="other")
    assert in_both_ways(daemon, *arguments).status == status


def test_both_ways_show_the_same_jobs(pool: Daemon) -> None:
    pool.enqueue("true", id="good", label="é\x1b[31m")
    pool.call("job.enqueue", jobs=[{"argv": ["sh", "-c", "exit 3"], "id": "bad", "max_retries": 1, "timeout": 2.5}])
    pool.enqueue("true", id="later", delay=100_000, priority=7, queue="night")
    pool.wait_state("good", "completed")
    pool.wait_state("bad", "dead")
    for state in ("pending", "dead", "all"):
        for more in ([], ["--limit", "2"], ["--limit", "0"], ["--limit", "1000"], ["--queue", "night"]):
            for form in ([], ["--json"]):
                assert in_both_ways(pool, "list", "--state", state, *more, *form).status == 0
    assert in_both_ways(pool, "status", "--json").status == 0
    assert in_both_ways(pool, "status").status == 0
    assert in_both_ways(pool, "wait", "good").status == 0
    assert in_both_ways(pool, "wait", "good", "bad", "--json").status == 1
    assert in_both_ways(pool, "wait", "good", "later", "--timeout", "0.1").status == 1
    assert in_both_ways(pool, "wait", "later", "--timeout", "0").status == 1
    assert in_both_ways(pool, "cancel", "good").status == 1
    for number, way in enumerate(WAYS):
        pool.enqueue("sleep 1000", id=f"long-{number}")
        pool.wait_state(f"long-{number}", "processing")
        assert call(way, pool, "cancel", f"long-{number}") == (0, f"long-{number}\tcancelled\n".encode(), b"")


@pytest.mark.parametrize(
    "arguments", [["enqueue", "--id", "a", "--", "true"], ["list"], ["status"], ["status", "--json"]]
)
@pytest.mark.parametrize(
    "shell", ['exec "$@" >&-', '"$@" >/dev/full', '"$@" 2>&-', '"$@" <&-', '"$@" | true; exit "${PIPESTATUS[0]}"']
)
def test_both_ways_end_the_same_where_nobody_reads(daemon: Daemon, arguments: list[str], shell: str) -> None:
    in_both_ways(daemon, *arguments, shell=shell)


@pytest.mark.parametrize("arguments", [["enqueue", "--", "true"], ["status"], ["list"], ["wait", "a"], ["cancel", "a"]])
def test_both_ways_say_the_same_where_no_daemon_is(make_daemon: Callable[..., Daemon], arguments: list[str]) -> None:
    away = make_daemon()
    assert in_both_ways(away, *arguments).status == 3
    assert in_both_ways(away, "--socket", "./nowhere//s/", *arguments).status == 3
    assert in_both_ways(away, "--socket", "/" + "x" * 300, *arguments).status == 2
    guess = {"XDG_RUNTIME_DIR": str(away.directory), "QUEUECTL_SOCKET": ""}
    assert in_both_ways(away, *arguments, **guess).status == 3


def test_both_ways_refuse_a_socket_that_others_could_replace(daemon: Daemon) -> None:
    daemon.socket.parent.chmod(0o777)
    done = in_both_ways(daemon, "enqueue", "--", "true")
    assert done.status == 3
    assert b"other users can put something else in the place of" in done.errors


def test_both_ways_leave_out_the_same_variables(daemon: Daemon) -> None:
    shell = 'export BAD=$(printf "\\377"); exec "$@"'
    done = in_both_ways(daemon, "enqueue", "--id", "a", "--", "true", shell=shell)
    assert done.output == b"a\n"
    assert b"BAD" in done.errors


def test_ctrl_c_ends_a_wait(daemon: Daemon) -> None:
    daemon.enqueue("true", id="a")
    outputs = []
    for command in WAYS.values():
        argv = [*command, "--socket", str(daemon.socket), "wait", "a"]
        with Terminal(argv, environment_of(daemon)) as terminal:
            terminal.asked("worker start --count 2`")
            terminal.send("\x03")
            assert terminal.finish() == 130
            outputs.append(terminal.output)
    assert outputs[0] == outputs[1]


def on_terminal(way: str, daemon: Daemon, *arguments: str) -> tuple[int, str]:
    command = [*WAYS[way], "--socket", str(daemon.socket), *arguments]
    with Terminal(command, environment_of(daemon)) as terminal:
        return terminal.finish(), terminal.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["enqueue", "--id", "a", "--", "true"],
        ["enqueue", "--id", "a b", "--", "true"],
        ["wait", "b", "--timeout", "0"],
        ["wait", "b", "--timeout", "0", "--json"],
        ["list"],
        ["list", "--limit", "1", "--json"],
        ["list", "--state", "dead"],
        ["status"],
        ["cancel", "nope"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_both_ways_show_the_same_on_a_terminal(daemon: Daemon, arguments: list[str]) -> None:
    daemon.enqueue("true", id="b", label="\x1b[31m é", delay=100_000)
    directly, by_click = (on_terminal(way, daemon, *arguments) for way in WAYS)
    assert directly == by_click


@pytest.mark.parametrize(
    "arguments",
    [
        ["enqueue", "--timeout", "5m", "--", "true"],
        ["wait", "a", "--timeout", "0"],
        ["cancel", "a"],
        ["list", "--json"],
        ["list"],
        ["status", "--json"],
        ["status"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_nothing_costly_is_imported(daemon: Daemon, arguments: list[str]) -> None:
    daemon.enqueue("true", id="a")
    start = "import sys; sys.argv[0] = 'queuectl'; from queuectl_client.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-X", "importtime", "-c", start, *arguments],
        env={**daemon.environment, "QUEUECTL_SOCKET": str(daemon.socket)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "queuectl_client.direct.run" in imported
    assert not imported & COSTLY


def test_a_daemon_that_comes_back_is_waited_for(daemon: Daemon) -> None:
    """A wait outlives a daemon that is killed and started again."""
    daemon.enqueue("true", id="a")
    with background(daemon, "wait", "a", stderr=subprocess.PIPE) as waiting:
        assert waiting.stderr is not None
        assert "no worker runs" in waiting.stderr.readline()  # it is connected
        daemon.kill()
        daemon.start()
        daemon.call("job.cancel", ids=["a"])
        assert waiting.communicate(timeout=PATIENCE)[0] == "a\tcancelled\n"
        assert waiting.returncode == 1
