"""Who waits for a job is woken by its change, and only by that."""

from __future__ import annotations

from queuectld.watchers import Watchers


def test_a_change_wakes_those_who_wait_for_that_job_and_nobody_else() -> None:
    watchers = Watchers()
    first, both, other = watchers.subscribe([1]), watchers.subscribe([1, 2]), watchers.subscribe([3])
    watchers.changed(1)
    assert [event.is_set() for event in (first, both, other)] == [True, True, False]
    both.clear()
    watchers.changed(2)
    assert [event.is_set() for event in (both, other)] == [True, False]


def test_who_has_left_is_not_woken_and_costs_no_memory() -> None:
    watchers = Watchers()
    leaving, staying = watchers.subscribe([1, 2]), watchers.subscribe([2])
    watchers.unsubscribe([1, 2], leaving)
    watchers.changed(1)
    watchers.changed(2)
    assert not leaving.is_set()
    assert staying.is_set()
    watchers.unsubscribe([2], staying)
    assert not watchers._events


def test_leaving_twice_and_changes_of_jobs_that_nobody_waits_for_are_fine() -> None:
    watchers = Watchers()
    event = watchers.subscribe([1, 1])
    watchers.unsubscribe([1], event)
    watchers.unsubscribe([1, 7], event)
    for number in range(100):
        watchers.changed(number)
    assert not watchers._events, "a change of a job that nobody waits for leaves nothing behind"


def test_a_stop_wakes_everyone() -> None:
    watchers = Watchers()
    events = [watchers.subscribe([number]) for number in range(5)]
    watchers.all_changed()
    assert all(event.is_set() for event in events)
