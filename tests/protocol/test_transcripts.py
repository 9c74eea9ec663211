"""The transcripts of errors against the pure code, whole and byte by byte; and the transcripts themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.framing import Request, decode_as, decode_request, encode_error
from queuectl_protocol.lines import Lines
from queuectl_protocol.messages import METHODS
from tests.protocol.transcript import FOLDER, Step, check_replies, cut, differences, load

ERRORS = sorted(FOLDER.glob("errors-*.jsonl"))
ALL = sorted(FOLDER.glob("*.jsonl"))


def answer(line: bytes | None) -> bytes | None:
    """What a daemon answers to a line, as far as that can be told without one; None is nothing."""
    if line is None:
        return encode_error(None, ProtocolError("too_large", "the line is too long"))
    if not line.strip():
        return None
    try:
        request = decode_request(line)
    except ProtocolError as error:
        return encode_error(None, error)
    refusal = refuse(request)
    assert refusal is not None, f"accepted: {line[:200]!r}"
    return None if request.id is UNSET else encode_error(request.id, refusal)


def refuse(request: Request) -> ProtocolError | None:
    method = METHODS.get(request.method)
    if method is None:
        return ProtocolError("method_not_found", "there is no such method")
    if method.workers_only:
        return ProtocolError("forbidden", "for workers only")
    try:
        decode_as(method.params, request.params)
    except ProtocolError as error:
        return error
    return None


def converse(lines: Lines, step: Step, *, byte_by_byte: bool) -> list[Any]:
    answers = [answer(line) for piece in cut(step.data, byte_by_byte=byte_by_byte) for line in lines.feed(piece)]
    return [json.loads(found) for found in answers if found is not None]


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["whole", "bytes"])
@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_errors(path: Path, *, byte_by_byte: bool) -> None:
    lines = Lines()
    for step in load(path, "run1"):
        check_replies(step, converse(lines, step, byte_by_byte=byte_by_byte))


@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_a_whole_transcript_at_once(path: Path) -> None:
    """One stream, cut where it hurts: replies are those of all steps."""
    steps = load(path, "run1")
    everything = Step(
        0, path.stem, b"".join(step.data for step in steps), [reply for step in steps for reply in step.expect]
    )
    check_replies(everything, converse(Lines(), everything, byte_by_byte=True))


def test_every_method_has_bad_parameters_in_a_transcript() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ERRORS)
    missing = [
        name
        for name in METHODS
        if f'\\"method\\": \\"{name}\\"' not in text and f'\\"method\\":\\"{name}\\"' not in text
    ]
    assert missing == ["worker.attach"], (
        "who may attach is found out only by looking at the peer: see live-server.jsonl"
    )


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_transcript_is_well_formed(path: Path) -> None:
    steps = load(path, "run1")
    assert steps
    assert len({step.about for step in steps}) == len(steps), "each step says what it shows"
    for step in steps:
        assert step.data.endswith(b"\n")
        for reply in step.expect:
            assert "id" in reply
            assert (reply["result"] == "<absent>") != (reply["error"] == "<absent>"), "it is a result, or an error"


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"a": "<absent>"}, {"b": 1}, True),
        ({"a": "<absent>"}, {"a": None}, False),
        ({"a": None}, {}, False),
        ([1], [1, 2], False),
        ([{"a": 1}], [{"a": 1, "b": 2}], True),
        (1, True, False),
        (0, False, False),
        (2, 2.0, True),
        ("<integer>", 5, True),
        ("<integer>", True, False),
        ("<integer>", 5.5, False),
        ("<number>", 5.5, True),
        ("<string>", None, False),
        ("<boolean>", False, True),
        ("<time>", "2025-01-31T12:34:56.5Z", True),
        ("<time>", "2025-01-31 12:34:56", False),
        ("<~^ab+$>", "abb", True),
        ("<~^ab+$>", "xabb", False),
        ("<any>", None, True),
    ],
)
def test_the_comparison_itself(expected: object, found: object, *, same: bool) -> None:
    assert (differences(expected, found) == []) is same


def test_a_missing_reply_and_one_too_many_are_found() -> None:
    step = Step(1, "two", b"", [{"id": 1, "result": {}}, {"id": None}])
    check_replies(step, [{"id": None}, {"id": 1, "result": {}}])
    for replies in (
        [{"id": 1, "result": {}}],
        [{"id": None}, {"id": 1, "result": {}}, {"id": 2}],
        [{"id": 1}, {"id": None}],
    ):
        with pytest.raises(AssertionError, match="line 1"):
            check_replies(step, replies)
