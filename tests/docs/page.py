"""A page of Markdown as tests see it: its blocks of code, the examples in them, its tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code of a page; `line` is that of its first line."""

    page: Path
    language: str
    line: int
    text: str


class Example(NamedTuple):
    """A command in a console block, and the output that the page shows for it."""

    line: int
    command: str
    expected: str


def read_blocks(page: Path) -> list[Block]:
    found = []
    language: str | None = None
    start, lines = 0, list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line[3:], number + 1, []
        else:
            found.append(Block(page, language, start, "".join(f"{text}\n" for text in lines)))
            language = None
    assert language is None, f"the block that begins in line {start} has no end"
    return found


def examples(block: Block) -> list[Example]:
    """`$ command`, further lines of it after `> `, then its output."""
    found: list[Example] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append(Example(number, line[2:], ""))
        elif line.startswith("> ") and found and not found[-1].expected:
            found[-1] = found[-1]._replace(command=f"{found[-1].command}\n{line[2:]}")
        else:
            assert found, f"line {number} shows output before any command"
            found[-1] = found[-1]._replace(expected=f"{found[-1].expected}{line}\n")
    return found


def table_after(page: Path, heading: str) -> list[str]:
    """The rows of the first table that has this line of headings."""
    lines = page.read_text().splitlines()
    rows = lines[lines.index(heading) + 2 :]
    return rows[: next(at for at, row in enumerate([*rows, ""]) if not row.startswith("|"))]


def anchors(page: Path) -> set[str]:
    """What `#...` may point to: the headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_-]", "", heading.lower().replace(" ", "-")) for heading in headings}


# What differs from one run to the next. The page shows it as it once was: it is compared by its kind.
_VARYING = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?", "<time>"),
    (r"\bPID \d+(?:, \d+)*", "PID <pid>"),
    (r"^pid: +\d+$", "pid: <pid>"),
    (r"\bw[0-9a-f]{6} +\d+\b", "<worker> <pid>"),
    (r"\bw[0-9a-f]{6}\b", "<worker>"),
    (r"\b[23456789abcdefghjkmnpqrstvwxyz]{12}\b", "<id>"),
    (r"\b(?:now|in \d+ [smhd]|\d+ [smhd] ago)(?![\w.])", "<when>"),
    (r"<?\b\d+(?:\.\d+)? (?:ms|[smhd])(?: \d+ [smhd])?(?![\w.])", "<span>"),
    (r"[ \t]+", " "),  # columns are as wide as what is in them
)


_NAME = re.compile(r"\bw[0-9a-f]{6}\b|\b[23456789abcdefghjkmnpqrstvwxyz]{12}\b")


def names(text: str) -> list[str]:
    """The random ids of jobs and workers in it."""
    return _NAME.findall(text)


def _by_kind(text: str) -> str:
    for pattern, kind in _VARYING:
        text = re.sub(pattern, kind, text, flags=re.MULTILINE)
    return "\n".join(line.strip() for line in text.splitlines())


def agrees(expected: str, actual: str) -> bool:
    """Whether the page tells the truth: what varies is of the same kind, `...` stands for anything.

    `...` alone on a line stands for any number of lines, else for a part of its line.
    """
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(re.escape("..."), ".*") + r"\n"
        for line in _by_kind(expected).splitlines()
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _by_kind(actual).splitlines())) is not None
