"""A short kill storm (`make torture` is the long one), and that its judge sees every kind of violation."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.crash.storm.jobs import Line, Submission
from tests.crash.storm.run import a_group, run_storm
from tests.crash.storm.verdict import Evidence, judge


@pytest.mark.timeout(300)
@pytest.mark.parametrize("containment", ["subreaper", "cgroup"])
def test_nothing_is_lost_and_nothing_runs_twice_whatever_is_killed(containment: str) -> None:
    with a_group() if containment == "cgroup" else contextlib.nullcontext() as group:
        if containment == "cgroup" and group is None:
            pytest.skip("no cgroup v2 directory can be made here (it takes root, or a delegated one)")
        seed = 2 * secrets.randbelow(500_000) + (group is None)  # as `make torture` has it: even ones with groups
        report = run_storm(seed, 12, groups=group)
    print(report.text)
    assert report.violations == [], f"the evidence is in {report.directory}; again: make torture SEED={report.seed}"


# --- the judge --------------------------------------------------------------------------------------------------------


def an_attempt(number: int, outcome: str, exit_code: int | None, **more: Any) -> dict[str, Any]:
    times = {"started_at": f"2030-01-01T00:00:{number:02d}Z", "ended_at": f"2030-01-01T00:00:{number:02d}.5Z"}
    return {"number": number, "worker": "w1", "outcome": outcome, "exit_code": exit_code, **times, **more}


def flawless() -> Evidence:
    """A job that failed once and then completed, and one that was cancelled."""
    submissions = {
        "a": Submission("a", "flaky", {"max_retries": 2}, acknowledged=True),
        "b": Submission("b", "ok", {"max_retries": 2}, acknowledged=True, cancels_sent=1, cancelled=True),
    }
    common = {"max_retries": 2, "timeout": 0}
    jobs: dict[str, dict[str, Any]] = {
        "a": {
            "id": "a", "state": "completed", "attempts": 2, **common,
            "history": [an_attempt(1, "failed", 3), an_attempt(2, "completed", 0)],
        },
        "b": {"id": "b", "state": "cancelled", "attempts": 0, **common, "history": []},
    }  # fmt: skip
    journal = [
        Line("begin", "a", 1, 10, 1.0, None),
        Line("end", "a", 1, 10, 1.1, 3),
        Line("begin", "a", 2, 11, 2.0, None),
        Line("end", "a", 2, 11, 2.1, 0),
    ]
    counts = {"pending": 0, "completed": 1, "cancelled": 1}
    return Evidence(submissions, jobs, counts, journal, disturbed=frozenset())


def job(evidence: Any, name: str) -> Any:
    return evidence.jobs[name]


def without_job(evidence: Any) -> None:
    evidence.jobs.pop("b")
    evidence.counts.update(cancelled=0)


TAMPERINGS: dict[str, Callable[[Any], object]] = {
    "its enqueue was acknowledged and it is not there": without_job,
    "nobody asked for it": lambda e: e.submissions.pop("b"),
    "status counts": lambda e: e.counts.update(pending=1),
    "nothing goes on any more": lambda e: job(e, "b").update(state="pending"),
    "its cancel was acknowledged": lambda e: job(e, "b").update(state="dead"),
    "nobody asked for that": lambda e: job(e, "a").update(state="cancelled"),
    "is completed after attempts": lambda e: job(e, "b").update(state="completed"),
    "numbered": lambda e: job(e, "a")["history"].pop(0),
    "before attempt 1 had ended": lambda e: job(e, "a")["history"][1].update(started_at="2030-01-01T00:00:01.4Z"),
    "are allowed": lambda e: job(e, "a")["history"].append(an_attempt(3, "completed", 0)),
    "it was run again": lambda e: job(e, "a")["history"][0].update(outcome="completed"),
    "1 attempts, its history has 2": lambda e: job(e, "a").update(attempts=1),
    "attempts of 2": lambda e: job(e, "a").update(attempts=3),
    "has no outcome": lambda e: job(e, "a")["history"][0].update(outcome=None),
    "nothing had happened to its worker": lambda e: job(e, "a")["history"][0].update(outcome="lost"),
    "without a timeout": lambda e: job(e, "a")["history"][0].update(outcome="timeout"),
    "the journal says 3": lambda e: job(e, "a")["history"][0].update(exit_code=4),
    "the journal says None": lambda e: e.journal.pop(),
    "processes of an earlier one": lambda e: e.journal.append(Line("overlap", "a", 2, 11, 2.0, None)),
    "was executed twice": lambda e: e.journal.append(e.journal[2]),
    "was executed after attempt 2": lambda e: e.journal.append(e.journal.pop(0)),
    "is not in the history": lambda e: e.journal.append(Line("begin", "a", 3, 12, 3.0, None)),
    "ended after attempt 2 had begun": lambda e: e.journal.append(e.journal.pop(1)),
    "it was executed and is not there": lambda e: e.journal.append(Line("begin", "c", 1, 12, 3.0, None)),
}
"""What the judge must say -> what was done to flawless evidence."""


def test_the_judge_has_nothing_to_say_about_flawless_evidence() -> None:
    assert judge(flawless()) == []


@pytest.mark.parametrize("said", TAMPERINGS)
def test_the_judge_sees(said: str) -> None:
    evidence = flawless()
    TAMPERINGS[said](evidence)
    assert any(said in violation for violation in judge(evidence))


@pytest.mark.parametrize("field", ["leftovers", "damage", "complaints"])
def test_the_judge_passes_on(field: str) -> None:
    more: dict[str, Any] = {field: ["something"]}
    assert judge(replace(flawless(), **more)) == ["something"]
