"""Durations as people type them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>ms|[smhd])?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(text: str) -> float:
    """Seconds: `90`, `1.5`, `90s`, `500ms`, `5m`, `2h` or `1d`.

    Raises:
        ValueError: where it is nothing of the kind. A range is not checked.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration: give seconds, or a number with a unit, as 90s, 5m, 2h or 1d")
    return float(found["number"]) * _UNITS[found["unit"] or "s"]
