"""Durations as people type them."""

from __future__ import annotations

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""`ms` before the `s` that it ends with."""
_BLANKS = " \t\n\r\f\v"


def parse_duration(text: str) -> float:
    """Seconds: `90`, `1.5`, `90s`, `500ms`, `5m`, `2h` or `1d`.

    Raises:
        ValueError: where it is nothing of the kind. A range is not checked.
    """
    number, factor = text.strip(), 1.0
    for unit, seconds in _UNITS.items():
        if number.endswith(unit):
            number, factor = number[: -len(unit)].rstrip(_BLANKS), seconds
            break
    whole, point, fraction = number.partition(".")
    digits = fraction.isdigit() and (not whole or whole.isdigit()) if point else whole.isdigit()
    if not (digits and number.isascii()):
        raise ValueError(f"{text!r} is not a duration: give seconds, or a number with a unit, as 90s, 5m, 2h or 1d")
    return float(number) * factor
