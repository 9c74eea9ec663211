"""The proof that a worker and all it started are gone, as the daemon looks for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.process_tree import lost, marks


@pytest.fixture
def come_and_go() -> Iterator[None]:
    """Others start processes that are gone at once: some are always gone before they can be looked at."""
    makers = [subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"], start_new_session=True) for _ in range(3)]
    yield
    for maker in makers:
        maker.kill()
        maker.wait()


def rounds_to_prove(lock: Path, mark: str) -> int:
    """How many looks were no proof yet."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    rounds = 0

    def give_up() -> bool:
        nonlocal rounds
        rounds += 1
        return False

    worker = (gone.pid, 0)
    assert lost.end_lost_tree(worker=worker, lock=lock, mark=mark, group=None, orphans=list, give_up=give_up)
    return rounds


@pytest.mark.usefixtures("come_and_go")
def test_a_worker_that_had_no_attempt_is_gone_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    os.close(marks.take_lock(lock))
    assert [rounds_to_prove(lock, "") for _ in range(20)] == [0] * 20


@pytest.mark.usefixtures("come_and_go")
def test_whoever_holds_its_lock_is_ended_all_the_same(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    descriptor = marks.take_lock(lock)
    holder = subprocess.Popen(["sleep", "1000"], pass_fds=[descriptor], start_new_session=True)
    os.close(descriptor)
    rounds_to_prove(lock, "")
    assert holder.wait() == -9
