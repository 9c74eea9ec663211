"""What `status`, `list`, `show` and `dlq list` look like, kept as text in snapshots/.

A change of how something looks is seen in the difference of a file. When it is meant, renew the files, and read them:

    QUEUECTL_SNAPSHOTS=renew .venv/bin/python -m pytest tests/e2e/test_cli_snapshots.py

What differs from run to run is replaced before files are compared: times, durations, PIDs, names of workers, paths; and
runs of spaces, since they depend on those.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import COLOURS, on_terminal
from tests.harness import Daemon, running_daemon, wait_for

SNAPSHOTS = Path(__file__).parent / "snapshots"
RENEW = os.environ.get("QUEUECTL_SNAPSHOTS") == "renew"
HOW = "if this is meant: QUEUECTL_SNAPSHOTS=renew .venv/bin/python -m pytest tests/e2e/test_cli_snapshots.py"

WIDE = 160
"""Columns: nothing is cut, wherever a cut would depend on what varies."""

COMMANDS = {
    "status": ["status"],
    "list": ["list", "--state", "all"],
    "show": ["show", "broken"],
    "show-running": ["show", "running", "--env"],
    "dlq-list": ["dlq", "list"],
}

VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "<time>"),
    (re.compile(r"\b(now|(in )?\d+ [smhd]( \d+ [smhd])?( ago)?|\d+\.\d+ s)(?![\w.])"), "<span>"),
    (re.compile(r"\bw[0-9a-f]{6}\b"), "<worker>"),
    (re.compile(r"(?m)(?<=PID )\d+|(?<=^<worker>  ) *\d+"), "<pid>"),
    (re.compile(r"(?m)^(Containment: |containment: +).*"), r"\1<how>"),
    (re.compile(r" {2,}"), "  "),
    (re.compile(r"(?m) +$"), ""),
)


def normal(text: str, daemon: Daemon) -> str:
    text = text.replace(str(daemon.directory), "/tmp/queue")
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text


@pytest.fixture(scope="module")
def queue() -> Iterator[Daemon]:
    """A queue with a job in every state. Its one worker is busy with `running`."""
    settings = {"backoff_base": 0, "kill_grace": 1}
    with (
        tempfile.TemporaryDirectory(prefix="qctl-", ignore_cleanup_errors=True) as path,
        running_daemon(Path(path), "--workers", "1", settings=settings) as daemon,
    ):
        daemon.enqueue("echo Hello", id="greeting", label="the first")
        daemon.enqueue("echo x >>n; [ $(wc -l <n) = 2 ] && kill $$; exit 3", id="broken", cwd=path)
        daemon.wait_state("broken", "dead")
        daemon.call("job.enqueue", jobs=[{"id": "missing", "argv": ["no-such-program", "a b"], "max_retries": 1}])
        daemon.wait_state("missing", "dead")
        daemon.call("config.set", key="backoff_base", value=1000)
        daemon.enqueue("false", id="again", queue="night")
        daemon.wait_state("again", "failed")
        daemon.enqueue("make backup", id="later", delay=7200, priority=5)
        daemon.enqueue("true", id="unwanted", delay=7200)
        daemon.call("job.cancel", ids=["unwanted"])
        daemon.enqueue("echo one\nsleep 600", id="running", timeout=900, env={"MODE": "fast"}, cwd=path)
        daemon.wait_state("running", "processing")
        wait_for(lambda: daemon.workers()[0]["state"] == "busy", "the worker to be busy")
        yield daemon


@pytest.mark.parametrize("name", COMMANDS)
def test_it_looks_as_it_did(queue: Daemon, name: str) -> None:
    words = COMMANDS[name]
    piped = queue.queuectl(*words).stdout
    status, drawn = on_terminal(queue, *words, columns=WIDE)
    assert status == 0
    command = f"queuectl {' '.join(words)}"
    text = normal(
        f"$ {command} | cat\n{piped}\n$ {command}    # on a terminal, without its colours\n{COLOURS.sub('', drawn)}",
        queue,
    )
    path = SNAPSHOTS / f"{name}.txt"
    if RENEW:
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), HOW


def test_there_is_a_command_for_every_file() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(COMMANDS)
