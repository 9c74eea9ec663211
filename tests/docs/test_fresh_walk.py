"""What `make fresh` stands on: the lines of the pages that it types, and the terminal that it types them into."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fresh import pages
from tests.fresh.terminal import Terminal


def test_the_page_names_the_packages_of_debian() -> None:
    assert pages.prerequisites() == ["python3-venv"]


@pytest.mark.parametrize(
    ("page", "heading", "number", "part"),
    [
        (pages.README, "## Install", 0, "bin/pip install ."),
        (pages.COMMANDS, "## completion", 0, "queuectl completion"),
        (pages.SYSTEMD, "## For yourself", 0, "queuectl service install --user"),
        (pages.SYSTEMD, "## For the machine", 0, "usermod"),
        (pages.SYSTEMD, "## For the machine", 1, "queuectl run"),
    ],
)
def test_the_sections_that_are_walked_hold_what_is_meant(page: Path, heading: str, number: int, part: str) -> None:
    lines = pages.lines(page, heading, number)
    assert any(part in line for line in lines)
    assert not any(" #" in line for line in lines)


def test_the_quick_start_begins_with_a_daemon() -> None:
    assert pages.console(pages.README, "## Quick start")[0].command.startswith("queuectl daemon start")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(["/bin/bash", "--norc", "-i"], tmp_path / "log")


def test_a_command_in_the_terminal_has_a_status_and_what_it_showed(terminal: Terminal) -> None:
    with terminal:
        assert terminal.type("printf 'a\\n\\nb\\n'; test -t 1 -a -t 0") == (0, "a\n\nb\n")
        assert terminal.type("(exit 3)") == (3, "")
        assert terminal.type("true") == (0, "")


def test_keys_are_read_by_the_shell_as_they_come(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "numbers.txt").touch()
    with terminal:
        terminal.type(f"cd {tmp_path}")
        terminal.press("ls num\t", r"ls numbers\.txt ")
        assert terminal.type("") == (0, "numbers.txt\n")


def test_what_does_not_come_ends_the_walk(terminal: Terminal) -> None:
    with terminal, pytest.raises(AssertionError, match="the terminal shows"):
        terminal.press("exit\r", "never")
