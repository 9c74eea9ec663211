"""The commands of README.md and of the pages in docs/, as a reader copies them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.page import Block, Example, examples, read_blocks

ROOT = Path(__file__).parents[2]
README, COMMANDS, SYSTEMD = ROOT / "README.md", ROOT / "docs" / "commands.md", ROOT / "docs" / "systemd.md"


def prerequisites() -> list[str]:
    """The packages that the section Install of README.md names for Debian."""
    found = re.search(r"`apt\s+install\s+([a-z0-9\s.-]+)`", README.read_text())
    assert found, "README.md names no packages of Debian"
    return found[1].split()


def lines(page: Path, heading: str, number: int = 0) -> list[str]:
    """The lines of the `number`th sh block below a heading, less their remarks."""
    block = _blocks(page, heading, "sh")[number]
    return [line.partition("  #")[0].rstrip() for line in block.text.splitlines()]


def console(page: Path, heading: str) -> list[Example]:
    """The examples of the console blocks below a heading."""
    return [example for block in _blocks(page, heading, "console") for example in examples(block)]


def _blocks(page: Path, heading: str, language: str) -> list[Block]:
    start, end = _section(page, heading)
    return [block for block in read_blocks(page) if block.language == language and start < block.line < end]


def _section(page: Path, heading: str) -> tuple[int, int]:
    text = page.read_text().splitlines()
    start = text.index(heading) + 1
    level = heading.index(" ")
    following = re.compile(rf"#{{1,{level}}} ")
    end = next((at for at, line in enumerate(text[start:], start + 1) if following.match(line)), len(text) + 1)
    return start, end
