"""Logs on standard error: a line an event, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec

LEVELS = ("debug", "info", "warning", "error")
Format = Literal["human", "json"]
FORMATS: tuple[Format, ...] = ("human", "json")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _printable(text: str) -> str:
    """With every control character made visible: a log line stays one line, whatever a job's error says."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class HumanFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 info    worker started worker=w1 pid=42`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        fields = "".join(f" {key}={_printable(str(value))}" for key, value in _fields(record).items())
        text = f"{when} {record.levelname.lower():7} {_printable(record.getMessage())}{fields}"
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


def set_up(level: str, form: Format) -> None:
    """Log to standard error from now on. A reader that is gone is no reason to stop."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
