"""SECURITY.md tells the truth where it can be held against the code."""

from __future__ import annotations

import re

from queuectl_protocol.messages import METHODS
from tests.harness import ROOT, Daemon

PAGE = (ROOT / "SECURITY.md").read_text()


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`((?:tests/e2e/)?test_\w+\.py)`", PAGE)
    assert named
    for name in named:
        assert (ROOT / "tests" / "e2e" / name.removeprefix("tests/e2e/")).exists()


def test_every_file_of_the_state_directory_is_in_its_table(single: Daemon) -> None:
    single.wait_state(single.enqueue("echo said"), "completed")
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    told = [re.sub(r"\b(N|JOB|ATTEMPT|ID)\b", "[^/]+", name) for row in rows for name in re.findall(r"`([^`]+)`", row)]
    for path in single.state_dir.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(single.state_dir))
            assert any(re.fullmatch(pattern, name) for pattern in told), f"{name} is not in the table"


def test_there_are_methods_that_only_workers_may_call() -> None:
    assert {name for name, method in METHODS.items() if method.workers_only} == {
        "worker.attach", "worker.finish", "worker.heartbeat",
    }  # fmt: skip
