"""Bytes to lines: the same lines however the bytes are cut, and bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queuectl_protocol.lines import MAX_LINE, Lines

LIMIT = 8


def expected(data: bytes, limit: int) -> list[bytes | None]:
    """The rule, said in the simplest way: a whole stream at once."""
    *complete, rest = data.split(b"\n")
    lines = [line if len(line) <= limit else None for line in complete]
    return [*lines, None] if len(rest) > limit else lines


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


short_streams = st.lists(st.binary(max_size=2 * LIMIT) | st.just(b"\n"), max_size=12).map(b"".join)


@settings(deadline=None)
@given(data=short_streams, places=st.lists(st.integers(0, 200), max_size=20))
@example(data=b"\n\n", places=[1])
@example(data=b"123456789\n1\n", places=[8, 9])
def test_any_chunking_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    lines = Lines(LIMIT)
    found: list[bytes | None] = []
    for chunk in cut(data, places):
        found += lines.feed(chunk)
        assert len(lines.rest) <= LIMIT
    assert found == expected(data, LIMIT)


@settings(deadline=None)
@given(data=short_streams)
def test_byte_by_byte_too(data: bytes) -> None:
    lines = Lines(LIMIT)
    found = [line for byte in data for line in lines.feed(bytes([byte]))]
    assert found == expected(data, LIMIT)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize(("size", "passes"), [(0, True), (LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)])
def test_the_limit(size: int, chunk: int, *, passes: bool) -> None:
    data = b"x" * size + b"\nnext\n"
    lines = Lines(LIMIT)
    found = [line for start in range(0, len(data), chunk) for line in lines.feed(data[start : start + chunk])]
    assert found == [b"x" * size if passes else None, b"next"]


@pytest.mark.parametrize(("size", "passes"), [(MAX_LINE - 1, True), (MAX_LINE, True), (MAX_LINE + 1, False)])
def test_the_limit_of_the_wire(size: int, *, passes: bool) -> None:
    assert MAX_LINE == 1024 * 1024
    (line,) = Lines().feed(b"x" * size + b"\n")
    assert (line is not None) is passes


def test_a_long_line_is_told_once_and_at_once() -> None:
    lines = Lines(LIMIT)
    assert lines.feed(b"x" * LIMIT) == []
    assert lines.feed(b"x") == [None], "before its newline: it may never come"
    assert lines.rest == b""
    for _ in range(5):
        assert lines.feed(b"x" * 100) == []
        assert lines.rest == b""
    assert lines.feed(b"\nok\n") == [b"ok"]


def test_each_long_line_is_told() -> None:
    assert Lines(LIMIT).feed(b"123456789\n123456789\nok\n123456789") == [None, None, b"ok", None]


def test_what_is_not_complete_waits() -> None:
    lines = Lines(LIMIT)
    assert lines.feed(b"a\nbc") == [b"a"]
    assert lines.rest == b"bc"
    assert lines.feed(b"") == []
    assert lines.feed(b"d\n") == [b"bcd"]
    assert lines.rest == b""


def test_a_carriage_return_belongs_to_the_line() -> None:
    assert Lines(LIMIT).feed(b"{}\r\n") == [b"{}\r"]


def test_memory_stays_bounded_however_a_line_comes() -> None:
    """A line in tiny pieces must not cost a Python object for each, nor an endless line its length."""
    lines = Lines(MAX_LINE)
    tracemalloc.start()
    try:
        for start in range(0, MAX_LINE, 2):
            assert lines.feed(b"%c%c" % (start & 0x7F | 0x20, 0x20)) == []
        assert len(lines.rest) == MAX_LINE
        chunk = b"y" * 65536
        assert lines.feed(chunk) == [None]
        for _ in range(100):
            assert lines.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_LINE
