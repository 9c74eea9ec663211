"""A group of commands that is called with nothing shows its help, as people read it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("group", [[], ["dlq"], ["config"], ["worker"], ["daemon"], ["service"]])
def test_a_group_alone_shows_its_help(group: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "queuectl_client", *group], capture_output=True, text=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines[0].startswith("Usage: queuectl")
    assert "Options:" in lines
    assert "\\n" not in done.stdout + done.stderr
