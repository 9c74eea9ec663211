"""What a start removes of the groups of the past, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.process_tree import cgroups
from tests.crash.storm.run import a_group


@pytest.fixture
def parent() -> Iterator[Path]:
    with a_group() as group:
        if group is None:
            pytest.skip("no cgroup v2 directory can be made here (it takes root, or a delegated one)")
        yield group


def test_an_empty_group_of_the_past_is_removed(parent: Path) -> None:
    group = cgroups.Group(parent, "token@queue")
    group.make()
    cgroups.remove_empty(parent, "@queue", in_use=())
    assert not group.path.exists()


@pytest.mark.parametrize(("queue", "in_use"), [("@queue", ["token@queue"]), ("@other", [])])
def test_an_empty_group_that_may_be_about_to_be_entered_is_left(parent: Path, queue: str, in_use: list[str]) -> None:
    """Found by the kill storm: a worker could not enter the group that it had just made, and its job had failed."""
    group = cgroups.Group(parent, "token@queue")
    group.make()
    cgroups.remove_empty(parent, queue, in_use)
    assert group.path.exists()
