"""Log lines: one event, one line, whatever is in it."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.journal import HumanFormatter, JsonFormatter

ANY = st.text(st.characters(exclude_categories=["Cs"]))
FORGED = "no\n2026-01-01 00:00:00 info    forged\x1b[2J"


def record(message: str, error: Exception | None = None, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("queuectld.test", logging.WARNING, __file__, 1, message, None, None)
    if error is not None:
        made.exc_info = (type(error), error, None)
    vars(made).update(fields)
    return made


@given(message=ANY, value=ANY)
def test_for_people_an_event_is_one_line_that_can_be_printed(message: str, value: str) -> None:
    line = HumanFormatter().format(record(message, job=value))
    assert line.isprintable()


@given(message=ANY, value=ANY)
def test_for_programs_an_event_is_one_line_of_json(message: str, value: str) -> None:
    line = JsonFormatter().format(record(message, job=value))
    assert len(line.split("\n")) == 1
    entry = json.loads(line)
    assert (entry["message"], entry["job"], entry["level"]) == (message, value, "warning")


def test_the_lines_of_a_traceback_can_not_be_taken_for_events() -> None:
    first, *others = HumanFormatter().format(record("a request failed", ValueError(FORGED))).split("\n")
    assert "a request failed" in first
    assert all(line.startswith("  ") and line.isprintable() for line in others)
    assert "forged" in others[-1]


def test_a_traceback_for_programs_is_within_the_line() -> None:
    entry = json.loads(JsonFormatter().format(record("a request failed", ValueError(FORGED))))
    assert entry["traceback"].endswith(FORGED)


@pytest.mark.parametrize("value", ["/tmp/\udcff", 1.5, None, ("a", 1), OSError("x")])
def test_whatever_a_field_is_the_event_is_told(value: object) -> None:
    for form in (HumanFormatter(), JsonFormatter()):
        assert "stays" in form.format(record("it stays", field=value))
