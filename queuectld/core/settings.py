"""The settings: types, ranges, defaults and help, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from queuectl_protocol.errors import ProtocolError, short
from queuectl_protocol.jobs import MIN_TIMEOUT

Value = int | float
V = TypeVar("V", int, float)
DAY = 86_400.0
YEAR = 31_536_000
MIN_LOG_BYTES = 65_536
"""A log is cut in blocks of the file system; a smaller limit could not be kept."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One setting: its type is that of its default; `low` and `high` are allowed themselves."""

    default: Value
    low: Value
    high: Value
    description: str


def _setting(default: V, low: V, high: V, description: str) -> V:
    setting: V = field(default=default, metadata={"definition": Definition(default, low, high, description)})
    return setting


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings with their values. Times are seconds."""

    max_retries: int = _setting(3, 0, 10_000, "executions in all, for jobs that do not say; 0 and 1 both mean one")
    backoff_base: float = _setting(2.0, 0.0, 1000.0, "a retry waits base ^ attempts seconds")
    backoff_max: float = _setting(3600.0, 0.0, 10.0 * YEAR, "upper bound of a delay between attempts, seconds")
    backoff_jitter: float = _setting(0.0, 0.0, 1.0, "share of a delay added at random (0.1 = up to 10 %)")
    job_timeout: float = _setting(
        0.0, 0.0, 10.0 * YEAR, "seconds that an attempt may take, for jobs that do not say; 0 is none"
    )
    kill_grace: float = _setting(10.0, 0.0, 3600.0, "seconds between SIGTERM and SIGKILL")
    shutdown_timeout: float = _setting(
        30.0, 0.0, float(YEAR), "seconds that a stopping daemon waits for running attempts"
    )
    heartbeat_interval: float = _setting(5.0, 0.1, 3600.0, "seconds between two signs of life of a worker")
    heartbeat_timeout: float = _setting(
        30.0, 0.5, 86_400.0, "a worker silent for longer (seconds) is killed with its job, and replaced"
    )
    keep_completed: float = _setting(
        30 * DAY, 0.0, 10.0 * YEAR, "seconds that a completed job is kept after its end, with its log; 0 is for ever"
    )
    keep_completed_count: int = _setting(0, 0, 1_000_000_000, "completed jobs that are kept at most; 0 is no limit")
    keep_dead: float = _setting(0.0, 0.0, 10.0 * YEAR, "seconds that a dead job is kept; 0 is for ever")
    keep_dead_count: int = _setting(0, 0, 1_000_000_000, "dead jobs that are kept at most; 0 is no limit")
    keep_cancelled: float = _setting(30 * DAY, 0.0, 10.0 * YEAR, "seconds that a cancelled job is kept; 0 is for ever")
    keep_cancelled_count: int = _setting(0, 0, 1_000_000_000, "cancelled jobs that are kept at most; 0 is no limit")
    log_max_bytes: int = _setting(
        1 << 30, 0, 1 << 50, "bytes of an attempt's log kept on disk, the newest; 0 is no limit, else at least 65536"
    )


DEFINITIONS: dict[str, Definition] = {f.name: f.metadata["definition"] for f in fields(Settings)}


def with_overrides(stored: Mapping[str, Value]) -> Settings:
    """The settings with those values that were set; keys of other versions are passed over.

    A store may give a float back as a whole number (SQLite does, by affinity): each value gets its setting's type.
    """
    known = {key: type(DEFINITIONS[key].default)(value) for key, value in stored.items() if key in DEFINITIONS}
    return Settings(**known)  # type: ignore[arg-type]


def definition(key: str) -> Definition:
    """The row of the table for `key`.

    Raises:
        ProtocolError: `not_found`.
    """
    found = DEFINITIONS.get(key)
    if found is None:
        raise ProtocolError(
            "not_found", f"there is no setting `{short(key)}`", "`queuectl config list` shows all settings"
        )
    return found


def check(key: str, given: float | str, current: Settings) -> Value:
    """`given` as a value of `key`: of its type and in its range, and in harmony with the other settings.

    Raises:
        ProtocolError: `not_found`, or `invalid_params` naming type and range.
    """
    rule = definition(key)
    whole = isinstance(rule.default, int)
    value = _number(given, whole=whole)
    if value is None or not rule.low <= value <= rule.high:
        kind = "a whole number" if whole else "a number"
        raise ProtocolError(
            "invalid_params",
            f"`{key}` is {kind} from {_plain(rule.low)} to {_plain(rule.high)}, not `{_shown(given)}`",
        )
    if key == "job_timeout" and 0 < value < MIN_TIMEOUT:
        raise ProtocolError("invalid_params", f"`job_timeout` is 0 (none) or at least {MIN_TIMEOUT} seconds")
    if key == "log_max_bytes" and 0 < value < MIN_LOG_BYTES:
        raise ProtocolError("invalid_params", f"`log_max_bytes` is 0 (no limit) or at least {MIN_LOG_BYTES}")
    interval = value if key == "heartbeat_interval" else current.heartbeat_interval
    timeout = value if key == "heartbeat_timeout" else current.heartbeat_timeout
    if key.startswith("heartbeat_") and timeout < 2 * interval:
        raise ProtocolError(
            "invalid_params",
            f"`heartbeat_timeout` ({_plain(timeout)}) must be at least twice `heartbeat_interval` ({_plain(interval)})",
            "a worker that is alive would be taken for dead; set the other one first",
        )
    return value


def _number(given: float | str, *, whole: bool) -> Value | None:
    """`given` as a finite number, a whole one if asked for; None if it is none."""
    if isinstance(given, bool) or (isinstance(given, str) and ("_" in given or not given.isascii())):
        return None  # Python would read True, "1_000" and digits of other scripts as numbers
    try:
        if whole:
            value = int(given)
            return value if isinstance(given, str) or value == given else None
        value_as_float = float(given)
    except (ValueError, OverflowError):  # no number; NaN or infinity as a whole one; more than a float holds
        return None
    return value_as_float + 0.0 if math.isfinite(value_as_float) else None  # + 0.0 makes 0 of -0


def _plain(value: Value) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _shown(given: float | str) -> str:
    try:
        return short(str(given))
    except ValueError:
        return "a number of thousands of digits"  # Python does not print it
