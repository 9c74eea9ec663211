"""SIGTERM reaches all of a process tree, however new a part of it is, and nothing that comes after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness import PATIENCE, ROOT

# A worker in small: what it starts, it ends after a moment that is another one each time.
WORKER = f"""
import os, random, signal, sys, time
from queuectld.process_tree import living
from queuectld.process_tree import proc

def collect():
    "Wait until nobody is left, and say so."
    deadline = time.monotonic() + {PATIENCE}
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)
    living.kill_descendants()
    sys.exit("some got no SIGTERM")

def start(*argv):
    return os.posix_spawnp(argv[0], argv, os.environ, setsid=True)

proc.become_subreaper()
"""


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", WORKER + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


def test_what_a_shell_starts_at_that_moment_gets_it_too() -> None:
    """A shell that dies between fork and its child's being seen would leave the child behind."""
    run(
        """
for turn in range(150):
    start("sh", "-c", "sleep 600; true")
    moment = time.monotonic() + random.random() * 0.003
    while time.monotonic() < moment:
        pass
    living.terminate_descendants()
    collect()
"""
    )


def test_what_is_started_to_clean_up_gets_none(tmp_path: Path) -> None:
    (tmp_path / "clean").write_text("#!/bin/sh\nsleep 0.1; touch cleaned\n")
    (tmp_path / "clean").chmod(0o755)
    run(
        """
os.chdir(sys.argv[1])
os.mkfifo("ready")
start("sh", "-c", "exec 2>/dev/null; trap './clean; exit' TERM; echo > ready; while :; do sleep 0.01; done")
open("ready").read()
living.terminate_descendants()
collect()
""",
        tmp_path,
    )
    assert (tmp_path / "cleaned").exists()


def test_nobody_sees_a_child_stopped(tmp_path: Path) -> None:
    """Some that do stop themselves, as sudo does."""
    watcher = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: None)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    open("ready", "w").close()
    while True:
        signal.pause()
_, status = os.waitpid(child, os.WUNTRACED)
open("seen", "w").write(str(os.WIFSTOPPED(status)))
if os.WIFSTOPPED(status):
    os.waitpid(child, 0)
"""
    run(
        """
os.chdir(sys.argv[1])
for turn in range(20):
    os.mkfifo("ready")
    start(sys.executable, "-c", sys.argv[2])
    open("ready").read()
    living.terminate_descendants()
    collect()
    assert open("seen").read() == "False"
    os.unlink("ready")
    os.unlink("seen")
""",
        tmp_path,
        watcher,
    )


def test_one_whose_first_thread_has_ended_is_alive() -> None:
    """As a Go or C program whose `main` has called pthread_exit(3): the kernel shows it as a zombie."""
    program = """
import ctypes, threading, time
def go_on():
    while True:
        time.sleep(600)
threading.Thread(target=go_on).start()
SYS_exit = {"x86_64": 60, "aarch64": 93}[__import__("platform").machine()]
ctypes.CDLL(None).syscall(SYS_exit, 0)
"""
    run(
        """
for end in (living.terminate_descendants, living.kill_descendants):
    pid = start(sys.executable, "-c", sys.argv[1])
    while b") Z " not in open(f"/proc/{pid}/stat", "rb").read():
        time.sleep(0.01)
    end()
    collect()
""",
        program,
    )
