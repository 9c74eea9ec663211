"""docs/protocol.md says what the code decodes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from queuectl_protocol.errors import KINDS, ProtocolError
from queuectl_protocol.framing import PATTERNS, decode_as, decode_request
from queuectl_protocol.messages import METHODS, NOTIFICATIONS
from queuectl_protocol.reference import EXAMPLES, render

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocol.md"


def test_the_checked_in_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m queuectl_protocol.reference > docs/protocol.md"


def test_the_command_prints_the_page() -> None:
    command = [sys.executable, "-m", "queuectl_protocol.reference"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    assert printed.decode() == render()


def test_everything_is_in_it() -> None:
    page = render()
    for name in METHODS:
        assert f"\n### {name}\n" in page
    for name in NOTIFICATIONS:
        assert f"\n#### {name}\n" in page
    for kind in KINDS.values():
        assert f"| `{kind.word}` | {kind.code} |" in page


def test_every_link_inside_the_page_leads_somewhere() -> None:
    page = render()
    anchors = {
        re.sub(r"[^a-z0-9_-]", "", text.lower().replace(" ", "-"))
        for text in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert links
    assert links <= anchors


def test_no_python_words_are_left() -> None:
    prose = re.sub(r"```.*?```", "", render(), flags=re.DOTALL)
    assert not re.findall(r"\b(?:None|True|False|UNSET|dict|list\[|Annotated)\b", prose)


@pytest.mark.parametrize("name", METHODS)
def test_an_example_is_valid(name: str) -> None:
    decode_as(METHODS[name].params, msgspec.Raw(EXAMPLES[name].encode()))


def test_every_request_line_on_the_page_is_valid() -> None:
    lines = [line for line in render().splitlines() if line.startswith("{") and '"method"' in line]
    assert len(lines) >= len(METHODS)
    refusals = []
    for line in lines:
        request = decode_request(line.encode())
        try:
            decode_as(METHODS[request.method].params, request.params)
        except ProtocolError as error:
            refusals.append(error.message)
    assert len(refusals) == 1, "there is one example of a refusal"
    assert f'"message":"{refusals[0]}"' in render()


def test_the_page_has_no_example_for_what_is_not_there() -> None:
    assert set(EXAMPLES) == set(METHODS)


def test_the_shell_examples_send_valid_requests() -> None:
    (shell,) = re.findall(r"```sh\n(.*?)```", render(), re.DOTALL)
    jobs = re.search(r"jobs='(.*)'", shell)
    assert jobs
    lines = re.findall(r"'(\{\"jsonrpc\".*?\})'(?:\s|$)", shell.replace("'\"$jobs\"'", jobs[1]), re.MULTILINE)
    assert len(lines) == shell.count('"jsonrpc"') == 4
    for line in lines:
        request = decode_request(line.encode())
        decode_as(METHODS[request.method].params, request.params)


def test_patterns_on_the_page_are_in_words() -> None:
    page = render()
    for pattern, words in PATTERNS.items():
        assert pattern not in page
        assert words in page
