"""Logs on standard error: a line an event, for people or as JSON.

Where standard error is systemd's journal, each line begins with its priority as `<N>`, which the journal takes away.
Lines for people have no time there, since the journal keeps one itself. sd-daemon(3), systemd.exec(5).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

LEVELS = ("debug", "info", "warning", "error")
Format = Literal["human", "json"]
FORMATS: tuple[Format, ...] = ("human", "json")

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_LOWEST_PRIORITY = 7
"""syslog's, which the journal counts in: critical, error, warning, informational, debug."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _printable(text: str) -> str:
    """With every control character made visible: a log line stays one line, whatever a job's error says."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class HumanFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 info    worker started worker=w1 pid=42`, in local time, or without the time."""

    def __init__(self, *, times: bool = True) -> None:
        super().__init__()
        self._times = times

    def format(self, record: logging.LogRecord) -> str:
        when = ""
        if self._times:
            when = f"{datetime.fromtimestamp(record.created, UTC).astimezone():%Y-%m-%d %H:%M:%S} "
        fields = "".join(f" {key}={_printable(str(value))}" for key, value in _fields(record).items())
        text = f"{when}{record.levelname.lower():7} {_printable(record.getMessage())}{fields}"
        if record.exc_info:
            # Indented, so that no line of it can pass for an event.
            text += "".join(f"\n  {_printable(line)}" for line in self.formatException(record.exc_info).splitlines())
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(entry, enc_hook=str).decode()
        except UnicodeEncodeError:  # a name of a file that is not UTF-8
            return json.dumps(entry, default=str)


class JournalFormatter(logging.Formatter):
    """What `inner` makes of an event, each line with the event's priority before it: `<4>warning no room`."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        number = next((number for level, number in _PRIORITIES if record.levelno >= level), _LOWEST_PRIORITY)
        return "\n".join(f"<{number}>{line}" for line in self._inner.format(record).split("\n"))


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether `descriptor` is the stream to the journal that systemd has given this process."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def say_at_the_end(*lines: str) -> None:
    """Write why the program ends, where a person or the journal finds it."""
    mark = "<3>" if is_journal(2, os.environ) else ""
    for line in lines:
        print(f"{mark}{line}", file=sys.stderr)  # noqa: T201 - no event of the daemon's work, but its last words


def set_up(level: str, form: Format) -> None:
    """Log to standard error from now on. A reader that is gone is no reason to stop."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    journal = is_journal(2, os.environ)
    formatter = JsonFormatter() if form == "json" else HumanFormatter(times=not journal)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
