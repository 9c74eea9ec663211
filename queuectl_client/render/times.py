"""Times and durations for people: local, and relative to now."""

from __future__ import annotations

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from datetime import datetime

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def span(seconds: float) -> str:
    """A duration with its two greatest units: `0.25 s`, `42 s`, `2 m 5 s`, `3 h 20 m`, `5 d`."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
            left = rest
        elif parts:
            break  # 1 h 0 m 3 s is told as 1 h
        if len(parts) == 2:
            break
    return " ".join(parts)


def relative(then: datetime, now: datetime) -> str:
    """`in 5 s`, `now`, `2 m ago`: with the greatest unit only."""
    seconds = round((then - now).total_seconds())
    if seconds == 0:
        return "now"
    size, unit = next(pair for pair in _UNITS if abs(seconds) >= pair[0])
    count = abs(seconds) // size
    return f"in {count} {unit}" if seconds > 0 else f"{count} {unit} ago"


def local(then: datetime) -> str:
    """`2025-01-31 14:03:22`, in this machine's time zone."""
    return then.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment(then: datetime, now: datetime) -> str:
    """Both: `2025-01-31 14:03:22 (2 m ago)`."""
    return f"{local(then)} ({relative(then, now)})"
