"""`make demo`: a tour of queuectl with real work, every step of it checked.

FAST=1 or CI=true in the environment, or an output that is no terminal: without pauses for reading.
Exit status: 0 all was as it should be; 1 something was not, and it says what; 128 + n after a signal.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from queuectl_client.errors import ClientError
from queuectl_protocol.errors import ProtocolError
from tests.demo import scenes
from tests.demo.stage import Stage, private_stage
from tests.harness import ROOT

PAUSE = 0.8
"""Seconds to read what a command has printed."""


class Signalled(BaseException):
    """The demo was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # under nohup, it stays ignored
            signal.signal(number, _end)
    begin = time.monotonic()
    try:
        with private_stage(pause=_pause()) as stage:
            try:
                totals = _play(stage)
            except (AssertionError, ClientError, ProtocolError) as error:
                _complain(error, stage)
                return 1
        if stage.directory.exists():
            _stderr().print(f"The demo could not remove its directory {stage.directory}.")
            return 1
        _sum_up(stage, totals, time.monotonic() - begin)
    except Signalled as signalled:
        _stderr().print("\nThe demo was interrupted. Nothing of it is left behind.")
        return 128 + signalled.number
    except BrokenPipeError:
        # The reader has gone, `| head` for example. The interpreter's own flush must find nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _play(stage: Stage) -> scenes.Totals:
    stage.console.print(Text.assemble(("queuectl", "bold cyan"), ", a job queue for one machine: the tour"))
    stage.say(
        "Every command below is really run, what it prints is real, and every step is checked. Ctrl-C ends the tour"
        " and leaves nothing behind."
    )
    scenes.start_daemon(stage)
    scenes.compress_files(stage)
    scenes.trouble(stage)
    scenes.dead_letters(stage)
    scenes.cancel_tree(stage)
    scenes.kill_daemon(stage)
    return scenes.stop_gracefully(stage)


def _sum_up(stage: Stage, totals: scenes.Totals, seconds: float) -> None:
    console = stage.console
    stage.rule("What you have seen")
    for claim in stage.claims:
        stage.tick(claim)
    stage.tick("The temporary directory, with the queue and all files, is gone too.")
    console.print()
    figures = f"{totals.jobs} jobs, {totals.attempts} attempts, {scenes.WORKERS} workers, {seconds:.0f} seconds"
    console.print(Text(figures, style="bold"))
    console.print()
    console.print(Text("Now yours:", style="bold"))
    for command, remark in (
        (f". {_activate()}", "puts queuectl on your PATH"),
        ("queuectl daemon start --workers 2", "your own, kept between sessions"),
        ("queuectl run -- echo Hello", "enqueue, watch, get its exit code"),
        ("queuectl --help", "all the rest"),
    ):
        console.print(Text.assemble("  ", (command.ljust(36), "cyan"), (f" # {remark}", "dim")), soft_wrap=True)


def _activate() -> str:
    path = os.path.join(sys.prefix, "bin", "activate")  # noqa: PTH118 - text for a person
    return os.path.relpath(path, ROOT) if path.startswith(f"{ROOT}{os.sep}") else path


def _complain(error: Exception, stage: Stage) -> None:
    """Say what is wrong, after all that was shown so far."""
    sys.stdout.flush()
    console = _stderr()
    console.print(Text.assemble(("The demo stops here: ", "bold red"), f"{error}."))
    if log := stage.daemon_log():
        console.print(Text("\nThe end of the daemon's log:", style="bold"))
        for line in log:
            console.print(Text(f"  {line}"), soft_wrap=True)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _pause() -> float:
    """Nobody reads along where there is no terminal."""
    hurry = any(os.environ.get(name, "").lower() not in {"", "0", "false", "no"} for name in ("FAST", "CI"))
    return 0.0 if hurry or not sys.stdout.isatty() else PAUSE


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise Signalled(number)


if __name__ == "__main__":
    sys.exit(main())
