"""What must hold after a storm. Pure: it looks at evidence that was collected, and names every violation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.crash.storm.jobs import Line, Submission
from tests.harness import seconds

FINAL = ("completed", "dead", "cancelled")


@dataclass(slots=True)
class Evidence:
    """All that is known when the storm is over and everything has settled.

    Attributes:
        submissions: what clients asked for, by id.
        jobs: what the daemon says of all its jobs, histories included (`job.get`), by id.
        counts: of states, as `status.get` says.
        journal: in the order in which it happened.
        disturbed: workers to whom something happened: a signal, or no time on a machine that is too busy.
        leftovers: what should be gone and is not, a sentence each: processes, files, groups.
        damage: what SQLite's integrity check found.
        complaints: faults that clients or the killer met, lines of the daemon's log that must never be written.
    """

    submissions: Mapping[str, Submission]
    jobs: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, int]
    journal: Sequence[Line]
    disturbed: frozenset[str]
    leftovers: Sequence[str] = ()
    damage: Sequence[str] = ()
    complaints: Sequence[str] = field(default_factory=list)


def judge(evidence: Evidence) -> list[str]:
    """Every violation, a sentence each."""
    found = [*evidence.complaints, *evidence.leftovers, *evidence.damage]
    found += _lost(evidence)
    found += _miscounted(evidence)
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in evidence.journal:
        lines[line.job].append(line)
    for job_id in lines.keys() - evidence.jobs.keys():
        found.append(f"{job_id}: it was executed and is not there")
    for job_id, job in evidence.jobs.items():
        submission = evidence.submissions.get(job_id)
        if submission is None:
            found.append(f"{job_id}: nobody asked for it")
            continue
        checks = (
            _state(job, submission),
            _history(job, submission, evidence.disturbed),
            _executions(job, lines[job_id]),
            _outcomes(job, lines[job_id]),
        )
        found += [f"{job_id} ({submission.kind}): {fault}" for faults in checks for fault in faults]
    return found


def _lost(evidence: Evidence) -> Iterator[str]:
    for job_id, submission in evidence.submissions.items():
        if submission.acknowledged and job_id not in evidence.jobs:
            yield f"{job_id}: its enqueue was acknowledged and it is not there"


def _miscounted(evidence: Evidence) -> Iterator[str]:
    recount = Counter(job["state"] for job in evidence.jobs.values())
    for state, count in evidence.counts.items():
        if recount[state] != count:
            yield f"status counts {count} jobs as {state}, there are {recount[state]}"


def _state(job: Mapping[str, Any], submission: Submission) -> Iterator[str]:
    state = job["state"]
    if state not in FINAL:
        yield f"is {state}, and nothing goes on any more"
    if submission.cancelled and state not in ("cancelled", "completed"):
        yield f"its cancel was acknowledged, and it is {state}"
    if state == "cancelled" and not submission.cancels_sent:
        yield "is cancelled, and nobody asked for that"
    if state == "completed" and submission.kind in ("fail", "endless"):
        yield "completed, which it can't"


def _history(job: Mapping[str, Any], submission: Submission, disturbed: frozenset[str]) -> Iterator[str]:
    history = job["history"]
    if [attempt["number"] for attempt in history] != [*range(1, len(history) + 1)]:
        yield f"its attempts are numbered {[attempt['number'] for attempt in history]}"
    for earlier, later in pairwise(history):
        if earlier["ended_at"] and seconds(later["started_at"]) < seconds(earlier["ended_at"]):
            yield f"attempt {later['number']} was started before attempt {earlier['number']} had ended"
    outcomes = [attempt["outcome"] for attempt in history]
    # An interruption with an error was the signal of somebody to the worker, and counts.
    counted = [attempt for attempt in history if attempt["outcome"] != "interrupted" or attempt["error"]]
    if len(counted) > submission.allowed:
        yield f"{len(counted)} counted attempts, {submission.allowed} are allowed"
    if not submission.retries_sent and job["attempts"] != len(counted):
        yield f"it says {job['attempts']} attempts, its history has {len(counted)} that count"
    if job["attempts"] > max(1, job["max_retries"]):
        yield f"it says {job['attempts']} attempts of {job['max_retries']}"
    if "completed" in outcomes[:-1]:
        yield f"it was run again after it had completed: {outcomes}"
    if (job["state"] == "completed") != (outcomes[-1:] == ["completed"]):
        yield f"is {job['state']} after attempts {outcomes}"
    if job["state"] == "dead" and not submission.retries_sent and len(counted) < max(1, job["max_retries"]):
        yield f"is dead after {len(counted)} of {job['max_retries']} attempts"
    for attempt in history:
        number, outcome = attempt["number"], attempt["outcome"]
        if outcome is None:
            yield f"attempt {number} has no outcome"
        elif outcome == "lost" and attempt["worker"] not in disturbed:
            yield f"attempt {number} was lost, but nothing had happened to its worker {attempt['worker']}"
        elif outcome == "timeout" and not job["timeout"]:
            yield f"attempt {number} timed out without a timeout"
        elif outcome == "cancelled" and not submission.cancels_sent:
            yield f"attempt {number} was cancelled, and nobody asked for that"


def _executions(job: Mapping[str, Any], lines: Sequence[Line]) -> Iterator[str]:
    attempts = {attempt["number"] for attempt in job["history"]}
    begun: list[int] = []
    for line in lines:
        if line.word == "overlap":
            yield f"attempt {line.attempt} began while processes of an earlier one were alive"
        elif line.word == "begin":
            if line.attempt not in attempts:
                yield f"attempt {line.attempt} was executed and is not in the history"
            if line.attempt in begun:
                yield f"attempt {line.attempt} was executed twice"
            elif begun and line.attempt < begun[-1]:
                yield f"attempt {line.attempt} was executed after attempt {begun[-1]}"
            begun.append(line.attempt)
        elif line.word == "end" and line.attempt != (begun or [0])[-1]:
            yield f"attempt {line.attempt} ended after attempt {(begun or [0])[-1]} had begun"


def _outcomes(job: Mapping[str, Any], lines: Sequence[Line]) -> Iterator[str]:
    ends = {line.attempt: line.code for line in lines if line.word == "end"}
    for attempt in job["history"]:
        number, outcome, code = attempt["number"], attempt["outcome"], attempt["exit_code"]
        said = ends.get(number)
        told = f"attempt {number} is recorded as {outcome} with exit code {code}"
        if (outcome == "completed" or (outcome == "failed" and attempt.get("signal") is None)) and said != code:
            yield f"{told} ({attempt.get('error')}), the journal says {said}"
        elif (outcome == "completed") != (code == 0) and outcome in ("completed", "failed"):
            yield told
