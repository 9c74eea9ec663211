"""What people type and what they are shown: durations, times, and text from outside made harmless."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl_client.jobs.durations import parse_duration
from queuectl_client.render.safe import visible, visible_json
from queuectl_client.render.times import local, moment, relative, span

NOW = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("500ms", 0.5),
        (" 5 m ", 300),
        ("0.5h", 1800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "-5", "-5s", "5x", "5 minutes", "nan", "inf", "1e3", "5m3s", "٣", "1_0", "5\n6"]
)
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (5, "5 s"),
        (42.4, "42 s"),
        (125, "2 m 5 s"),
        (3600, "1 h"),
        (12000, "3 h 20 m"),
        (3603, "1 h"),
        (5 * 86400, "5 d"),
        (90061, "1 d 1 h"),
        (-3, "0 s"),
        (59.6, "1 m"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.4, "now"),
        (5, "in 5 s"),
        (-5, "5 s ago"),
        (-125, "2 m ago"),
        (3700, "in 1 h"),
        (-200000, "2 d ago"),
    ],
)
def test_relative_times(seconds: float, text: str) -> None:
    assert relative(NOW + timedelta(seconds=seconds), NOW) == text


def test_times_for_people_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC-3")
    time.tzset()
    try:
        assert local(NOW) == "2025-01-31 15:00:00"
        assert moment(NOW, NOW + timedelta(minutes=2)) == "2025-01-31 15:00:00 (2 m ago)"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("bell\x07 del\x7f nul\0", r"bell\x07 del\x7f nul\x00"),
        ("C1 \x9b31m \x85", r"C1 \x9b31m \x85"),
        ("title \x1b]0;x\x07", r"title \x1b]0;x\x07"),
        ("over\u202eride \u2066isolate\u2069", r"over\u202eride \u2066isolate\u2069"),
        ("lines\u2028and\u2029paragraphs", r"lines\u2028and\u2029paragraphs"),
        ("zero\u200bwidth \ufeff", r"zero\u200bwidth \ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_harmful_is_left(text: str) -> None:
    shown = visible(text)
    # Cc are controls, Cf invisible format characters, Zl and Zp separators, Cs halves of pairs. Some Cf are letters'
    # companions in Arabic and other scripts, and harmless.
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Zl", "Zp", "Cs"}
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }
    shown.encode()  # raises where something is left that can't be written


@given(st.text())
def test_json_is_harmless_too_and_means_the_same(text: str) -> None:
    written = json.dumps({"x": text}, ensure_ascii=False)
    shown = visible_json(written)
    assert json.loads(shown) == {"x": text}
    assert visible(shown) == shown
