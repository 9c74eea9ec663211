"""What the scenes of the demo stand on: commands typed and run in the open, checks, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from queuectl_client.client import Client
from queuectl_protocol.jobs import Job
from queuectl_protocol.paths import MAX_SOCKET_PATH
from tests.harness import CHECKOUT, processes_with, wait_for

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something that should happen is taken for broken."""
WIDEST = 100
"""Columns of text that are still read with ease."""
LOG_LINES = 12
"""Of the daemon's log, shown when something went wrong."""


class WrongError(AssertionError):
    """Something is not as it should be; the message is a sentence for a person."""


def expect(condition: object, otherwise: str) -> None:
    """Go on only if `condition` is true.

    Raises:
        WrongError: with `otherwise`, the sentence that says what is wrong.
    """
    if not condition:
        raise WrongError(otherwise)


def session_of(pid: int) -> int:
    """The session that a process is in; 0 if it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


class Stage:
    """A directory, a socket and an environment of its own, and the page that the audience reads.

    Attributes:
        directory: commands are run here; it goes away at the end.
        client: looks at the daemon behind the scenes, to check what the commands have shown.
        console: standard output.
        claims: what was proven so far.
    """

    def __init__(self, directory: Path, *, pause: float) -> None:
        """`pause`: seconds for which the audience is left alone with a command's output."""
        self.directory = directory
        self.console = _console()
        self.claims: list[str] = []
        self.client = Client(directory / "sock")
        self._pause = pause
        self._scene = 0
        self._fancy = self.console.encoding.startswith("utf")
        self._environment = _environment(directory)

    # --- the page ---------------------------------------------------------------------------------------------------

    def scene(self, title: str, text: str) -> None:
        """Begin a scene: a heading, and what is going to happen."""
        self._scene += 1
        self.rule(f"{self._scene}. {title}")
        self.say(text)

    def rule(self, title: str) -> None:
        line = "─" if self._fancy else "-"
        self.console.print(Rule(Text(title, style="bold"), align="left", style="cyan", characters=line))

    def say(self, text: str) -> None:
        """A remark between two commands."""
        self.console.print(textwrap.fill(text, self.console.width), "", sep="\n")
        self._rest()

    def proven(self, claim: str) -> None:
        """Tell the audience what was just checked."""
        self.claims.append(claim)
        self.tick(claim)
        self.console.print()
        self._rest()

    def tick(self, claim: str) -> None:
        """A claim with a tick before it."""
        mark = "✓" if self._fancy else "ok:"
        lines = textwrap.wrap(claim, self.console.width - len(mark) - 3)
        self.console.print(Text.assemble("  ", (mark, "bold green"), " ", f"\n{'':{len(mark) + 3}}".join(lines)))

    def _rest(self) -> None:
        time.sleep(self._pause)

    # --- commands ---------------------------------------------------------------------------------------------------

    def type(self, line: str, *, status: int = 0) -> None:
        """Show a command line and run it as a shell would; what it prints goes straight to the audience.

        Args:
            line: for `sh -c`.
            status: what it should exit with.

        Raises:
            WrongError: it exits with something else.
        """
        self.console.print(Text.assemble(("$ ", "bold cyan"), (line, "bold")), soft_wrap=True)
        sys.stdout.flush()  # before the command writes to the same place
        try:
            got = subprocess.run(
                ["/bin/sh", "-c", line],
                cwd=self.directory, env=self._environment, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise WrongError(f"`{line}` has not returned after {PATIENCE:g} s") from None
        expect(got == status, f"`{line}` exited with {got}, and {status} was expected")
        self.console.print()
        self._rest()

    # --- looking behind the scenes ----------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], T], what: str) -> T:
        """The first true value of `condition`.

        Raises:
            AssertionError: it did not come; the message says what was waited for.
        """
        return wait_for(condition, what, PATIENCE)

    def expect_job(self, job_id: str, state: str, *, attempts: int, exit_codes: Collection[int] = (0,)) -> Job:
        """The job, which must be in this state, after so many attempts in its whole life, with one of these last
        exit codes.

        Raises:
            WrongError: it is not so.
        """
        job = self.client.get(job_id)
        expect(job.state == state, f"job {job_id} should be {state}, but is {job.state} ({job.error or 'no error'})")
        made = len(job.history or [])
        expect(made == attempts, f"job {job_id} should have had {attempts} attempts, but has had {made}")
        wanted = " or ".join(map(str, exit_codes))
        expect(job.exit_code in exit_codes, f"job {job_id} should have exit code {wanted}, but has {job.exit_code}")
        return job

    def output(self, job_id: str) -> str:
        """What the job's newest attempt has written so far."""
        return b"".join(self.client.logs(job_id)).decode(errors="replace")

    def wait_output(self, job_id: str, text: str) -> None:
        self.wait_for(lambda: text in self.output(job_id), f"job {job_id} to say `{text}`")

    def tree(self, job_id: str) -> set[int]:
        """PIDs of the job's running processes, as the machine knows them, not the daemon."""
        return set(processes_with(f"QUEUECTL_JOB_ID={job_id}\0")) & set(processes_with(str(self.directory)))

    def wait_main_process(self, job_id: str) -> int:
        """The job's first process, once it runs: it leads the job's session."""
        return self.wait_for(
            lambda: next((pid for pid in self.tree(job_id) if session_of(pid) == pid), 0), f"job {job_id} to run"
        )

    def left_over(self) -> list[int]:
        """PIDs of all processes that belong to this stage."""
        return processes_with(str(self.directory))

    # --- the end ----------------------------------------------------------------------------------------------------

    def daemon_log(self) -> list[str]:
        """The last lines that the daemon wrote; none if there is no log."""
        with contextlib.suppress(OSError):
            return (self.directory / "state" / "daemon.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        return []

    def clear(self) -> None:
        """End whatever still runs, however far the demo came."""
        self.client.close()
        if self.left_over():
            # A daemon that is still well ends its jobs' trees itself, and knows them best.
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["queuectl", "daemon", "stop", "--now"], env=self._environment, cwd="/", timeout=PATIENCE,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
                )  # fmt: skip

        def end_all() -> bool:
            left = self.left_over()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        self.wait_for(end_all, "every process of the demo to be gone")


@contextlib.contextmanager
def private_stage(*, pause: float) -> Iterator[Stage]:
    """A stage; afterwards there is no process and no file of it, Ctrl-C or not."""
    # A Unix socket's path has little room. `$TMPDIR` may be deep; /tmp is not.
    roomy = len(os.fsencode(tempfile.gettempdir())) < MAX_SOCKET_PATH - 40
    directory = Path(tempfile.mkdtemp(prefix="queuectl-demo-", dir=None if roomy else "/tmp"))
    stage = None
    try:
        stage = Stage(directory, pause=pause)
        yield stage
    finally:
        # A second Ctrl-C, or the impatient, must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            if stage is not None:
                stage.clear()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, WIDEST)
    return console


def _environment(directory: Path) -> dict[str, str]:
    """Everything that is typed finds this daemon and no other, and no settings of the user's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL_")}
    environment["QUEUECTL_SOCKET"] = str(directory / "sock")
    environment["XDG_CONFIG_HOME"] = str(directory / "config")
    environment["PATH"] = f"{_commands(directory)}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment


def _commands(directory: Path) -> Path:
    """Where the commands are: beside this Python or, where they are not installed, made here of the source."""
    installed = Path(sys.executable).parent
    if (installed / "queuectl").exists():
        return installed
    made = directory / "bin"
    made.mkdir()
    script = made / "queuectl"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m queuectl_client "$@"\n')
    script.chmod(0o755)
    return made
