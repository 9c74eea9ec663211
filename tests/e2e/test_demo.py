"""The tour that `make demo` gives: it ends well, it notices what is wrong, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, processes_with, wait_for

PLAYTIME = 100.0
"""Seconds that a whole demo may take on a machine that is busy with other tests."""

BROKEN_GZIP = "#!/bin/sh\nexec cat\n"
"""It succeeds, but what comes out is no archive."""


@pytest.fixture
def demo(directory: Path) -> Iterator[Demo]:
    played = Demo(directory)
    yield played
    played.check_nothing_is_left()


class Demo:
    """The demo, its temporary directory made in one of ours."""

    def __init__(self, directory: Path) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.commands = directory / "bin"
        self.commands.mkdir()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL_")},
            "FAST": "1",
            "TMPDIR": str(self.temporary),
            "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.demo"],
            cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def play(self) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        with self.start() as process:
            output, errors = process.communicate(timeout=PLAYTIME)
        return process.returncode, output, errors

    def check_nothing_is_left(self) -> None:
        assert processes_with(str(self.temporary)) == []
        assert list(self.temporary.iterdir()) == []


def test_the_tour_ends_well(demo: Demo) -> None:
    status, output, errors = demo.play()
    assert status == 0, errors
    assert "no daemon answers" in errors  # what `status` says after the daemon was killed
    assert "43 jobs, 46 attempts" in output
    assert "\x1b" not in output + errors  # no colours for a pipe


def test_it_stops_at_the_first_step_that_is_wrong(demo: Demo) -> None:
    (demo.commands / "gzip").write_text(BROKEN_GZIP)
    (demo.commands / "gzip").chmod(0o755)
    status, output, errors = demo.play()
    assert status == 1
    assert "The demo stops here: " in errors
    assert ".gz is no valid archive" in errors
    assert "flaky" not in output  # of the next scene


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_cleans_up_when_it_is_interrupted(demo: Demo, number: signal.Signals) -> None:
    with demo.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ queuectl worker start"):
                break
        # A worker is there when the command has done its work; there is most to clean up.
        wait_for(lambda: len(processes_with(str(demo.temporary))) > 3, "daemon and workers to run")
        process.send_signal(number)
        _output, errors = process.communicate(timeout=PLAYTIME)
    assert process.returncode == 128 + number
    assert "Nothing of it is left behind" in errors
