"""Log lines: one event, one line, whatever is in it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.host.journal import HumanFormatter, JournalFormatter, JsonFormatter
from tests.harness import CHECKOUT

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


PROGRAM = """
import logging
from queuectld.host import journal
journal.set_up("debug", "{form}")
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(logging.getLogger("queuectld"), level)("it happened", extra={{"worker": "w1"}})
"""


def written(tmp_path: Path, form: str, *, journal: bool) -> list[str]:
    """What a program's log is, whose standard error is the journal's stream or not."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        status = os.fstat(stderr.fileno())
        stream = f"{status.st_dev}:{status.st_ino + (not journal)}"
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(form=form)],
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": CHECKOUT, "JOURNAL_STREAM": stream},
            check=True,
            timeout=30,
        )
    return log.read_text().splitlines()


def test_in_the_journal_lines_have_priorities_and_no_time(tmp_path: Path) -> None:
    assert written(tmp_path, "human", journal=True) == [
        "<7>debug   it happened worker=w1",
        "<6>info    it happened worker=w1",
        "<4>warning it happened worker=w1",
        "<3>error   it happened worker=w1",
        "<2>critical it happened worker=w1",
    ]


def test_json_in_the_journal_has_priorities_and_keeps_its_time(tmp_path: Path) -> None:
    lines = written(tmp_path, "json", journal=True)
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert all(json.loads(line[3:])["time"] for line in lines)


def test_elsewhere_lines_have_times_and_no_priorities(tmp_path: Path) -> None:
    """Also where a parent's $JOURNAL_STREAM was inherited, and standard error is a file."""
    for line in written(tmp_path, "human", journal=False):
        assert line[:2] == "20"


def test_the_lines_of_a_traceback_have_the_priority_of_their_event() -> None:
    lines = JournalFormatter(HumanFormatter()).format(record("a request failed", ValueError("no"))).split("\n")
    assert len(lines) > 1
    assert all(line.startswith("<4>") for line in lines)
