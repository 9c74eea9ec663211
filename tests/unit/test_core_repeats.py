"""Whether a request with the id of a job that is there asks for the same job, and if not, in what it differs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import UNSET, structs

from queuectl_protocol.jobs import Job, JobSpec, JobState, content_of_0_1
from queuectld.core.policy import Policy, decide
from queuectld.core.repeats import differing, digest
from queuectld.core.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS = decide(Settings())


def made_from(spec: JobSpec, usual: Policy = DEFAULTS) -> Job:
    """The job as it is right after it was enqueued."""
    return Job(
        id="a",
        queue=spec.queue,
        state=JobState.PENDING,
        command=UNSET if spec.command is None else spec.command,
        argv=UNSET if spec.argv is None else spec.argv,
        priority=spec.priority,
        attempts=0,
        max_retries=usual.max_retries if spec.max_retries is None else spec.max_retries,
        timeout=usual.timeout if spec.timeout is None else spec.timeout,
        label=spec.label,
        cwd=spec.cwd,
        run_at=NOW + timedelta(seconds=spec.delay),
        created_at=NOW,
        updated_at=NOW,
        env=spec.env or {},
        exact_env=spec.exact_env,
    )


CALLER = {"TTY": "1", "A": "1"}
TYPED: dict[str, Any] = {"argv": ["true"], "cwd": "/", "env": CALLER, "exact_env": True}
WRITTEN: dict[str, Any] = {"command": "true", "env": {"A": "1"}}

CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    (TYPED, {"argv": ["false"]}, ["argv"]),
    (TYPED, {"argv": None, "command": "true"}, ["command", "argv"]),
    (TYPED, {"cwd": "/usr"}, ["cwd"]),
    (TYPED, {"env": {}}, []),
    (TYPED, {"env": {"A": "2"}, "env_given": ["A"]}, ["env"]),
    (TYPED, {"delay": 5.0}, ["delay"]),
    (TYPED | {"delay": 5.0}, {"delay": 0.0}, ["delay"]),
    (TYPED, {"max_retries": 7, "timeout": 7.0}, ["max_retries", "timeout"]),
    (TYPED | {"max_retries": 7}, {"max_retries": None}, ["max_retries"]),
    (TYPED, {"max_retries": DEFAULTS.max_retries}, []),
    (TYPED, {"exact_env": False}, ["exact_env"]),
    (TYPED | {"env_given": ["A"]}, {"env_given": None, "priority": 1}, ["priority"]),
    (TYPED | {"env_given": ["A"]}, {"env_given": None}, []),
    (TYPED | {"env_given": ["A"]}, {"env_given": None, "env": {"A": "1"}}, ["delay` or `env"]),
    (WRITTEN, {"env": {"A": "2"}}, ["env"]),
    (WRITTEN, {"env": None}, ["env"]),
    (WRITTEN, {"delay": 1.0, "label": "x"}, ["label", "delay"]),
    (WRITTEN | {"env": None}, {"env": {}}, []),
]


@pytest.mark.parametrize(("before", "change", "fields"), CHANGES, ids=lambda value: str(value)[:60])
def test_the_fields_that_differ_are_named(before: dict[str, Any], change: dict[str, Any], fields: list[str]) -> None:
    first, second = JobSpec(**before), JobSpec(**before | change)
    assert differing(second, made_from(first), digest(first), DEFAULTS) == fields
    assert differing(first, made_from(first), digest(first), DEFAULTS) == []


@pytest.mark.parametrize("fields", [TYPED, WRITTEN, TYPED | {"delay": 60.0, "max_retries": 2}], ids=str)
def test_a_job_of_version_0_1_is_known_whatever_has_become_of_it(fields: dict[str, Any]) -> None:
    spec = JobSpec(**fields)
    job = structs.replace(made_from(spec), run_at=NOW + timedelta(days=1), state=JobState.FAILED)
    stored = hashlib.blake2b(content_of_0_1(spec), digest_size=16).digest()
    changed = decide(Settings(max_retries=9, job_timeout=9))
    assert differing(spec, job, stored, changed) == []
    if spec.exact_env:
        assert differing(structs.replace(spec, env={"TTY": "2"}), job, stored, changed) == []
        assert differing(structs.replace(spec, env=CALLER, env_given=["A"]), job, stored, changed) == []
    assert differing(structs.replace(spec, priority=1), job, stored, changed) == ["priority"]


def test_a_changed_setting_makes_no_other_request() -> None:
    spec = JobSpec(**TYPED)
    changed = decide(Settings(max_retries=9))
    assert differing(spec, made_from(spec), digest(spec), changed) == []
    named = structs.replace(spec, max_retries=9)
    assert differing(named, made_from(spec), digest(spec), changed) == ["max_retries"]
    assert differing(named, made_from(spec, changed), digest(spec), DEFAULTS) == []


def test_a_job_that_can_not_have_been_asked_for_differs() -> None:
    spec = JobSpec(**WRITTEN)
    broken = structs.replace(made_from(spec), command=UNSET)
    assert differing(structs.replace(spec, priority=1), broken, digest(spec), DEFAULTS)[0] == "command"
