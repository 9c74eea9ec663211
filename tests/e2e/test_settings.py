"""Settings over the wire: types, ranges, defaults; kept, effective at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness import Daemon, RefusedError

CONTRACT = {
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


def test_a_new_daemon_has_the_contracts_defaults(daemon: Daemon) -> None:
    settings = {setting["key"]: setting for setting in daemon.call("config.list")["settings"]}
    assert {key: settings[key]["value"] for key in CONTRACT} == CONTRACT
    for setting in settings.values():
        assert setting["value"] == setting["default"]
        assert setting["is_set"] is False
        assert setting["description"]


def test_set_get_unset(daemon: Daemon) -> None:
    assert daemon.call("config.set", key="kill_grace", value="2.5")["value"] == 2.5
    setting = daemon.call("config.get", key="kill_grace")
    assert (setting["value"], setting["default"], setting["is_set"]) == (2.5, 10, True)
    assert daemon.call("config.unset", key="kill_grace")["value"] == 10
    assert daemon.call("config.get", key="kill_grace")["is_set"] is False
    assert daemon.call("config.unset", key="kill_grace")["value"] == 10


def test_settings_are_kept_over_a_sigkill(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.call("config.set", key="max_retries", value=8)
    daemon.kill()
    daemon.start()
    assert daemon.call("config.get", key="max_retries")["value"] == 8
    assert daemon.job(daemon.enqueue("true"))["max_retries"] == 8


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("max_retries", -1, "whole number"),
        ("max_retries", 1.5, "whole number"),
        ("max_retries", "many", "whole number"),
        ("max_retries", 10**30, "whole number"),
        ("backoff_base", -0.1, "number"),
        ("backoff_jitter", 1.1, "0 to 1"),
        ("kill_grace", "nan", "number"),
        ("kill_grace", "inf", "number"),
        ("kill_grace", "", "number"),
        ("heartbeat_interval", 0, "number"),
        ("heartbeat_timeout", 6, "heartbeat_interval"),
        ("heartbeat_interval", 20, "heartbeat_timeout"),
    ],
)
def test_a_bad_value_is_refused_and_the_old_one_stays(daemon: Daemon, key: str, value: float | str, says: str) -> None:
    before = daemon.call("config.get", key=key)
    with pytest.raises(RefusedError) as caught:
        daemon.call("config.set", key=key, value=value)
    assert caught.value.kind == "invalid_params"
    assert key in str(caught.value)
    assert says in str(caught.value)
    assert daemon.call("config.get", key=key) == before


@pytest.mark.parametrize("method", ["config.get", "config.set", "config.unset"])
def test_an_unknown_key_is_not_found(daemon: Daemon, method: str) -> None:
    with pytest.raises(RefusedError) as caught:
        daemon.call(method, key="colour", **({"value": 1} if method == "config.set" else {}))
    assert caught.value.kind == "not_found"
    assert "colour" in str(caught.value)


def test_unset_can_not_break_the_harmony_of_two_settings(daemon: Daemon) -> None:
    daemon.call("config.set", key="heartbeat_timeout", value=100)
    daemon.call("config.set", key="heartbeat_interval", value=40)
    with pytest.raises(RefusedError) as caught:
        daemon.call("config.unset", key="heartbeat_timeout")
    assert caught.value.kind == "invalid_params"
    assert daemon.call("config.get", key="heartbeat_timeout")["value"] == 100


def test_kill_grace_set_while_a_job_runs_counts_for_its_end(single: Daemon) -> None:
    single.call("config.set", key="kill_grace", value=3600)
    job_id = single.enqueue("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    single.call("job.logs", id=job_id, follow=True)
    single.call("config.set", key="kill_grace", value=0.1)
    single.call("job.cancel", ids=[job_id])
    single.wait_state(job_id, "cancelled")
