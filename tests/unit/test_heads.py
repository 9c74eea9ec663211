"""Which priority is looked at next: what is kept for that."""

from __future__ import annotations

from queuectld.store.sqlite.heads import Heads


def test_jobs_that_are_due_ever_earlier_leave_nothing_behind() -> None:
    heads = Heads()
    for priority in range(10):
        for run_at in range(10_000, 0, -1):
            heads.waits(priority, float(run_at))
    assert heads.size < 200
    assert heads.earliest_later() == (1.0, 0)
    assert heads.highest_due(0.5) is None
    assert heads.highest_due(1.0) == 9
