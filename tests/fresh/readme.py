"""The commands of README.md, as a reader copies them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.page import Example, examples, read_blocks

PAGE = Path(__file__).parents[2] / "README.md"


def prerequisites() -> list[str]:
    """The packages that the section Install names for Debian."""
    found = re.search(r"`apt install ([a-z0-9 .-]+)`", PAGE.read_text())
    assert found, "README.md names no packages of Debian"
    return found[1].split()


def lines(heading: str, number: int = 0) -> list[str]:
    """The lines of the `number`th sh block below a heading, less their remarks."""
    return [line.partition("  #")[0].rstrip() for line in _blocks(heading, "sh")[number].splitlines()]


def console(heading: str) -> list[Example]:
    """The examples of the console blocks below a heading."""
    start, end = _section(heading)
    blocks = [block for block in read_blocks(PAGE) if block.language == "console" and start < block.line < end]
    return [example for block in blocks for example in examples(block)]


def _blocks(heading: str, language: str) -> list[str]:
    start, end = _section(heading)
    return [block.text for block in read_blocks(PAGE) if block.language == language and start < block.line < end]


def _section(heading: str) -> tuple[int, int]:
    page = PAGE.read_text().splitlines()
    start = page.index(heading) + 1
    level = heading.index(" ")
    following = re.compile(rf"#{{1,{level}}} ")
    end = next((at for at, line in enumerate(page[start:], start + 1) if following.match(line)), len(page) + 1)
    return start, end
