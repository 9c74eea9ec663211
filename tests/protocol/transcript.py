"""Conversations as files: what is sent, and what must come back.

A transcript is a file of JSON objects, one a line. Each is a step:

- `about`: what it shows, for people.
- `send`: the lines to send, together. A line is a string; or a list of parts, each a string, `{"hex": "ff00"}` for
  bytes that are no text, or `{"repeat": "x", "times": 9}`. Newlines are added.
- `expect`: the replies, in any order; those with the same id in this order. Nothing else may come.

What is expected of a reply are only the members that are named. Strings stand for more than themselves where they
are `<any>`, `<absent>`, `<string>`, `<integer>`, `<number>`, `<boolean>`, `<array>`, `<object>`, `<time>`, or
`<~ regular expression>`. `@RUN@` is replaced, in what is sent and what is expected, by a word that is another one in
each run, so that one daemon can serve many.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "transcripts"

_TYPES: dict[str, type | tuple[type, ...]] = {
    "<string>": str,
    "<integer>": int,
    "<number>": (int, float),
    "<boolean>": bool,
    "<array>": list,
    "<object>": dict,
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True)
class Step:
    """One step: `line` is its number in the file, `data` the bytes to send."""

    line: int
    about: str
    data: bytes
    expect: list[Any]


def load(path: Path, run: str) -> list[Step]:
    """The steps of a transcript, with `run` for `@RUN@`."""
    steps = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        step = json.loads(line.replace("@RUN@", run))
        assert set(step) <= {"about", "send", "expect"}, f"{path.name}:{number} has an unknown member"
        steps.append(Step(number, step["about"], b"".join(map(_line, step["send"])), step["expect"]))
    return steps


def _line(line: str | list[str | dict[str, Any]]) -> bytes:
    parts = [line] if isinstance(line, str) else line
    return b"".join(map(_part, parts)) + b"\n"


def _part(part: str | dict[str, Any]) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    return str(part["repeat"]).encode() * int(part["times"])


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where `found` is not what is `expected`; empty if it is."""
    if isinstance(expected, str) and re.fullmatch(r"<.+>", expected, re.DOTALL):
        return [] if _fits(expected, found) else [f"{where}: {found!r} is not {expected}"]
    if isinstance(expected, dict) and isinstance(found, dict):
        problems = []
        for key, value in expected.items():
            if value == "<absent>":
                problems += [f"{where}.{key} is there: {found[key]!r}"] if key in found else []
            elif key not in found:
                problems.append(f"{where}.{key} is missing")
            else:
                problems += differences(value, found[key], f"{where}.{key}")
        return problems
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{where}: {len(found)} items, not {len(expected)}: {found!r}"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [problem for index, (one, other) in pairs for problem in differences(one, other, f"{where}[{index}]")]
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return [] if same else [f"{where}: {found!r} is not {expected!r}"]


def _fits(placeholder: str, found: Any) -> bool:
    if placeholder == "<any>":
        return True
    if placeholder.startswith("<~"):
        return isinstance(found, str) and re.search(placeholder[2:-1].strip(), found) is not None
    if placeholder == "<time>":
        return isinstance(found, str) and _TIME.fullmatch(found) is not None
    return isinstance(found, _TYPES[placeholder]) and (placeholder == "<boolean>" or not isinstance(found, bool))


def check_replies(step: Step, replies: list[Any]) -> None:
    """Hold the replies to a step against what it expects: all of them, and nothing else."""

    def by_id(messages: list[Any]) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        for message in messages:
            groups.setdefault(json.dumps(message["id"]), []).append(message)
        return groups

    expected, found = by_id(step.expect), by_id(replies)
    problems = [
        problem
        for request_id in {**expected, **found}
        for problem in differences(expected.get(request_id, []), found.get(request_id, []), f"id {request_id}: ")
    ]
    assert not problems, f"line {step.line} ({step.about}): " + "; ".join(problems)


def cut(data: bytes, *, byte_by_byte: bool) -> list[bytes]:
    """`data` in the pieces in which it is sent: all at once, or byte by byte; odd pieces where it is very long."""
    size = len(data) if not byte_by_byte else 1 if len(data) <= 10_000 else 4093
    return [data[start : start + size] for start in range(0, len(data), max(size, 1))]
