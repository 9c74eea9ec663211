"""No place but core/lifecycle.py names a state that a job takes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectl_protocol.jobs import JobState
from tests.harness import ROOT

DAEMON = ROOT / "queuectld"
THE_TABLE = DAEMON / "core" / "lifecycle.py"
MIGRATIONS = DAEMON / "store" / "sqlite" / "migrations.py"
"""Steps between old schemas: they are what they were."""

LOOKING = {"in_state", "JobListParams", "Rule"}
"""What is called with a state to look at jobs that have it."""

STATES = "|".join(JobState)


def named_states(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Where a state is named as something else than what a job's state is compared with, looked for, or was before."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "JobState" and node.attr.isupper()):
            continue
        parent = parents[node]
        while isinstance(parent, ast.Tuple | ast.Set | ast.List):
            parent = parents[parent]
        if isinstance(parent, ast.keyword):
            looked_for = parent.arg == "before"
            parent = parents[parent]
        else:
            looked_for = False
        fine = (
            looked_for
            or isinstance(parent, ast.Compare)
            or (isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Load))
            or (isinstance(parent, ast.Call) and ast.unparse(parent.func).rpartition(".")[2] in LOOKING)
        )
        if not fine:
            yield node.lineno, ast.unparse(node)


def states_in_sql(text: str) -> Iterator[str]:
    """Where a statement names a state that is not one that it looks for."""
    looked_for = rf"(?<!SET )\bstate (= '({STATES})'|IN \('({STATES})'(, '({STATES})')*\))"
    yield from re.findall(rf"[^\n]*'(?:{STATES})'[^\n]*", re.sub(looked_for, "", text))


def modules() -> list[Path]:
    return sorted(path for path in DAEMON.rglob("*.py") if path not in (THE_TABLE, MIGRATIONS))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(DAEMON)))
def test_no_state_is_named_that_a_job_takes(path: Path) -> None:
    text = path.read_text()
    assert [*named_states(ast.parse(text))] == []
    assert [*states_in_sql(text)] == []


@pytest.mark.parametrize(
    "code",
    [
        "store.update(1, state=JobState.PENDING)",
        "state = JobState.DEAD",
        "counts[JobState.DEAD] += 1",
        "def f(): return JobState.DEAD",
        "states = (JobState.DEAD, JobState.CANCELLED)",
        "def f(state=JobState.DEAD): pass",
    ],
)
def test_what_takes_a_state_is_seen(code: str) -> None:
    assert [*named_states(ast.parse(code))]


@pytest.mark.parametrize(
    "code",
    [
        "if state is JobState.DEAD: pass",
        "if state in (JobState.DEAD, JobState.PENDING): pass",
        "print(counts[JobState.DEAD])",
        "store.in_state(JobState.DEAD, 3)",
        "count(before=JobState.PROCESSING)",
    ],
)
def test_what_looks_for_a_state_is_no_fault(code: str) -> None:
    assert not [*named_states(ast.parse(code))]


@pytest.mark.parametrize(
    ("statement", "is_fault"),
    [
        ("UPDATE jobs SET state = 'pending' WHERE number = 1", True),
        ("INSERT INTO jobs (state) VALUES ('pending')", True),
        ("UPDATE jobs SET state = ? WHERE state = 'pending'", False),
        ("SELECT 1 FROM jobs WHERE state IN ('pending', 'failed')", False),
    ],
)
def test_statements_that_set_a_state_are_seen(statement: str, is_fault: bool) -> None:
    assert bool([*states_in_sql(statement)]) is is_fault
