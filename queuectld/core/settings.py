"""The settings: types, ranges, defaults and help, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from protocol.errors import ProtocolError

Value = int | float
YEAR = 31_536_000


@dataclass(frozen=True, slots=True)
class Definition:
    """One setting: its type is that of its default; `low` and `high` are allowed themselves."""

    default: Value
    low: Value
    high: Value
    description: str


def _setting(default: Value, low: Value, high: Value, description: str) -> Value:
    return field(default=default, metadata={"definition": Definition(default, low, high, description)})  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings with their values. Times are seconds."""

    max_retries: int = _setting(3, 0, 10_000, "executions in all, for jobs that do not say; 0 and 1 both mean one")  # type: ignore[assignment]
    backoff_base: float = _setting(2.0, 0.0, 1000.0, "a retry waits base ^ attempts seconds")
    backoff_max: float = _setting(3600.0, 0.0, 10.0 * YEAR, "upper bound of a delay between attempts, seconds")
    backoff_jitter: float = _setting(0.0, 0.0, 1.0, "share of a delay added at random (0.1 = up to 10 %)")
    job_timeout: float = _setting(0.0, 0.0, 10.0 * YEAR, "seconds an attempt of a job that does not say may take; 0 is none")
    kill_grace: float = _setting(10.0, 0.0, 3600.0, "seconds between SIGTERM and SIGKILL")
    shutdown_timeout: float = _setting(
        30.0, 0.0, float(YEAR), "seconds that a stopping daemon waits for running attempts"
    )
    heartbeat_interval: float = _setting(5.0, 0.1, 3600.0, "seconds between two signs of life of a worker")
    heartbeat_timeout: float = _setting(
        30.0, 0.5, 86_400.0, "a worker silent for longer (seconds) is killed with its job, and replaced"
    )


DEFINITIONS: dict[str, Definition] = {f.name: f.metadata["definition"] for f in fields(Settings)}


def with_overrides(stored: Mapping[str, Value]) -> Settings:
    """The settings with those values that were set; keys of other versions are passed over."""
    return Settings(**{key: value for key, value in stored.items() if key in DEFINITIONS})  # type: ignore[arg-type]


def definition(key: str) -> Definition:
    """
    Raises:
        ProtocolError: `not_found`.
    """
    found = DEFINITIONS.get(key)
    if found is None:
        raise ProtocolError("not_found", f"there is no setting {key!r}", "`queuectl config list` shows all settings")
    return found


def check(key: str, given: float | str, current: Settings) -> Value:
    """`given` as a value of `key`: of its type and in its range, and in harmony with the other settings.

    Raises:
        ProtocolError: `not_found`, or `invalid_params` naming type and range.
    """
    rule = definition(key)
    whole = isinstance(rule.default, int)
    kind = "a whole number" if whole else "a number"
    expected = f"`{key}` is {kind} from {rule.low:g} to {rule.high:g}"
    try:
        value: Value = int(given) if whole and not isinstance(given, float) else float(given)
    except ValueError:
        raise ProtocolError("invalid_params", f"{expected}, not {given!r}") from None
    if not math.isfinite(value) or (whole and value != int(value)):
        raise ProtocolError("invalid_params", f"{expected}, not {given!r}")
    value = int(value) if whole else float(value)
    if not rule.low <= value <= rule.high:
        raise ProtocolError("invalid_params", f"{expected}, not {given}")
    interval = value if key == "heartbeat_interval" else current.heartbeat_interval
    timeout = value if key == "heartbeat_timeout" else current.heartbeat_timeout
    if key.startswith("heartbeat_") and timeout < 2 * interval:
        raise ProtocolError(
            "invalid_params",
            f"`heartbeat_timeout` ({timeout:g}) must be at least twice `heartbeat_interval` ({interval:g})",
            "a worker that is alive would be taken for dead; set the other one first",
        )
    return value
