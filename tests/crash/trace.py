"""strace on a daemon: system calls that fail when a test says so, and the order in which they were made."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Daemon, wait_for


def _fault() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()}"


FAULT = _fault()
needs_strace = pytest.mark.skipif(bool(FAULT), reason=FAULT or "strace works")

DATABASE = ("queue.db", "queue.db-wal")


def command(daemon: Daemon, *options: str, output: Path | None = None) -> list[str]:
    """The command that traces what is done with the files of the daemon's database, and nothing else."""
    paths = [option for name in DATABASE for option in ("-P", str(daemon.state_dir / name))]
    return ["strace", "-f", "-qq", "-yy", "-o", str(output or "/dev/null"), *paths, *options]


@contextlib.contextmanager
def attached(pid: int, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Have all threads of a running process traced, until the end of the block or of the process."""
    tracer = subprocess.Popen([*arguments, "-p", str(pid)], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: _traces_all(pid, tracer), "strace to be attached")
        yield tracer
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go, and the daemon goes on
        tracer.wait(PATIENCE)


def _traces_all(pid: int, tracer: subprocess.Popen[bytes]) -> bool:
    assert tracer.poll() is None, "strace has ended"
    found = [(thread / "status").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(f"\nTracerPid:\t{tracer.pid}\n" in status for status in found)


_LINE = re.compile(r"^(?P<thread>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?P<rest>.*)$")


def told_too_early(trace: str, ids: list[str]) -> list[str]:
    """Those of `ids` whose acknowledgement was sent before the fdatasync of the log that holds them had returned.

    Args:
        trace: strace's output, one line an event, with whole buffers and the files' names: pwrite64 and fdatasync of
            the write-ahead log, and what is sent.
        ids: each must have been written and sent.

    Raises:
        AssertionError: an id was not written, or not sent.
    """
    written: set[str] = set()
    safe: set[str] = set()
    syncing: dict[str, set[str]] = {}  # what had been written when a thread's fdatasync began
    early: list[str] = []
    sent: set[str] = set()
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, call, rest = match["thread"], match["call"], match["rest"]
        begins, ends = "<... " not in line, "<unfinished ...>" not in line
        if call == "pwrite64":
            # Only one that has ended is in the file; its text stands where it began, so both halves are one event here.
            written |= {job_id for job_id in ids if f"{job_id}" in rest}
        elif call == "fdatasync":
            if begins:
                syncing[thread] = set(written)
            if ends and rest.endswith("= 0"):
                safe |= syncing.pop(thread)
        elif call in ("sendto", "sendmsg", "write", "writev") and begins:
            told = {job_id for job_id in ids if f'\\"ids\\":[\\"{job_id}\\"' in rest}
            sent |= told
            early += sorted(told - safe)
    assert set(ids) <= written, sorted(set(ids) - written)
    assert set(ids) <= sent, sorted(set(ids) - sent)
    return early
