"""The table of settings against CONTRACT.md's, and what is refused."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl_protocol.errors import ProtocolError
from queuectld.core.settings import DEFINITIONS, Settings, check, definition, with_overrides

DEFAULTS = Settings()

CONTRACT: dict[str, int | float] = {
    "max_retries": 3,
    "backoff_base": 2,
    "backoff_max": 3600,
    "backoff_jitter": 0,
    "job_timeout": 0,
    "kill_grace": 10,
    "shutdown_timeout": 30,
    "heartbeat_interval": 5,
    "heartbeat_timeout": 30,
}
WHOLE = {"max_retries", "keep_completed_count", "keep_dead_count", "keep_cancelled_count", "log_max_bytes"}


def plain(number: float) -> str:
    """As a person writes it."""
    return str(int(number)) if number == int(number) else str(number)


def refusal(key: str, given: float | str, current: Settings = DEFAULTS) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        check(key, given, current)
    return caught.value


def test_keys_and_defaults_are_the_contracts() -> None:
    ours = {key: value for key, value in asdict(DEFAULTS).items() if key in CONTRACT}
    assert ours == CONTRACT


def test_every_definition_is_sound() -> None:
    assert set(DEFINITIONS) == set(asdict(DEFAULTS))
    for key, rule in DEFINITIONS.items():
        assert rule.default == getattr(DEFAULTS, key)
        assert rule.low <= rule.default <= rule.high
        assert type(rule.low) is type(rule.high) is type(rule.default)
        assert rule.description
        assert isinstance(rule.default, int) is (key in WHOLE)
        assert check(key, rule.default, DEFAULTS) == rule.default


@pytest.mark.parametrize("key", DEFINITIONS)
def test_both_ends_of_the_range_are_allowed(key: str) -> None:
    rule = DEFINITIONS[key]
    roomy = Settings(heartbeat_interval=0.1, heartbeat_timeout=86_400.0)
    for value in (rule.low, rule.high):
        found = check(key, value, roomy)
        assert found == value
        assert type(found) is type(rule.default)
        assert check(key, str(value), roomy) == value


@pytest.mark.parametrize("key", DEFINITIONS)
def test_beyond_the_range_is_refused_with_type_and_range_named(key: str) -> None:
    rule = DEFINITIONS[key]
    for value in (rule.low - 1, rule.high + 1, -math.inf, math.inf, math.nan, 10**400, -(10**400), 10**5000):
        error = refusal(key, value)
        assert error.kind == "invalid_params"
        kind = "a whole number" if key in WHOLE else "a number"
        assert error.message.startswith(f"`{key}` is {kind} from {plain(rule.low)} to {plain(rule.high)}, not `")
        assert "e+" not in error.message.partition(", not ")[0], "ranges are written for people"
        assert len(error.message) < 250


@pytest.mark.parametrize("key", DEFINITIONS)
@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "nan", "inf", "-inf", "Infinity", "1e999", "-1e999", "0x10", "1_0", "٣", "5s", "1,5", "true",
     "9" * 6000, "1\n2"],
)  # fmt: skip
def test_text_that_is_no_finite_number_is_refused(key: str, text: str) -> None:
    error = refusal(key, text)
    assert error.kind == "invalid_params"
    assert f"`{key}` is a " in error.message


def test_a_refused_value_is_shown_without_its_control_characters() -> None:
    assert (
        refusal("max_retries", "5\x1b[31m").message
        == "`max_retries` is a whole number from 0 to 10000, not `5\\x1b[31m`"
    )


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("key", ["max_retries", "backoff_base"])
def test_true_and_false_are_no_numbers(key: str, *, value: bool) -> None:
    assert refusal(key, value).kind == "invalid_params"


@pytest.mark.parametrize(
    ("given", "expected"), [(3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), ("+3", 3), (0, 0), (10_000, 10_000)]
)
def test_a_whole_number(given: float | str, expected: int) -> None:
    found = check("max_retries", given, DEFAULTS)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize("given", [3.5, "3.5", "3.0", "1e1", -1, "-1", 10_001, 1e300])
def test_no_whole_number_in_range(given: float | str) -> None:
    assert refusal("max_retries", given).kind == "invalid_params"


@pytest.mark.parametrize(
    ("given", "expected"), [(2, 2.0), ("2", 2.0), ("1.5", 1.5), ("1e2", 100.0), (0, 0.0), ("-0", 0.0)]
)
def test_a_number(given: float | str, expected: float) -> None:
    found = check("backoff_base", given, DEFAULTS)
    assert found == expected
    assert type(found) is float
    assert math.copysign(1, found) == 1, "-0 is shown as 0"


@pytest.mark.parametrize("given", [0.0001, "0.0099"])
def test_a_timeout_too_short_to_load_a_program_is_refused(given: float | str) -> None:
    error = refusal("job_timeout", given)
    assert error.kind == "invalid_params"
    assert error.message == "`job_timeout` is 0 (none) or at least 0.01 seconds"
    assert check("job_timeout", 0.01, DEFAULTS) == 0.01
    assert check("job_timeout", 0, DEFAULTS) == 0


def test_a_log_too_small_to_keep_anything_is_refused() -> None:
    for value in (1, 65_535):
        assert refusal("log_max_bytes", value).message == "`log_max_bytes` is 0 (no limit) or at least 65536"
    for value in (0, 65_536):
        assert check("log_max_bytes", value, DEFAULTS) == value


@pytest.mark.parametrize(
    ("key", "value", "current"),
    [
        ("heartbeat_timeout", 9.99, Settings()),
        ("heartbeat_interval", 15.1, Settings()),
        ("heartbeat_interval", 5, Settings(heartbeat_timeout=9.0)),
        ("heartbeat_timeout", 30, Settings(heartbeat_interval=20.0)),
    ],
)
def test_heartbeats_must_fit_into_the_timeout(key: str, value: float, current: Settings) -> None:
    error = refusal(key, value, current)
    assert error.kind == "invalid_params"
    assert "`heartbeat_timeout`" in error.message
    assert "`heartbeat_interval`" in error.message
    assert error.hint


def test_twice_the_interval_is_enough() -> None:
    assert check("heartbeat_timeout", 10, DEFAULTS) == 10
    assert check("heartbeat_interval", 15, DEFAULTS) == 15


def test_settings_that_are_out_of_harmony_do_not_block_others() -> None:
    assert check("max_retries", 5, Settings(heartbeat_interval=20.0)) == 5


@pytest.mark.parametrize("key", ["", "nope", "MAX_RETRIES", "max-retries", "__class__", "x\x1b[31m"])
def test_an_unknown_setting(key: str) -> None:
    error = refusal(key, 1)
    assert error.kind == "not_found"
    assert error.message.startswith("there is no setting `")
    assert "\x1b" not in error.message
    assert "config list" in error.hint
    with pytest.raises(ProtocolError):
        definition(key)


def test_stored_values_win_and_unknown_keys_are_passed_over() -> None:
    found = with_overrides({"max_retries": 7, "backoff_base": 1.5, "of_another_version": 1})
    assert found == Settings(max_retries=7, backoff_base=1.5)
    assert with_overrides({}) == DEFAULTS


def test_a_stored_number_gets_its_settings_type() -> None:
    found = with_overrides({"backoff_base": 3, "max_retries": 4.0})
    assert type(found.backoff_base) is float
    assert type(found.max_retries) is int
    assert found == Settings(backoff_base=3.0, max_retries=4)


@settings(deadline=None)
@given(
    key=st.sampled_from(sorted(DEFINITIONS)),
    value=st.integers() | st.floats() | st.text(max_size=20) | st.floats().map(str) | st.integers().map(str),
)
def test_whatever_is_given_is_in_range_or_refused(key: str, value: float | str) -> None:
    rule = DEFINITIONS[key]
    try:
        found = check(key, value, DEFAULTS)
    except ProtocolError:  # anything else would be a fault of ours
        return
    assert type(found) is type(rule.default)
    assert rule.low <= found <= rule.high
    assert check(key, found, DEFAULTS) == found, "what was stored is valid"
