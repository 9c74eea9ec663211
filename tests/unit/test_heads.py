"""What is kept of the lanes: bounded, forgotten after a rollback, and never without a job that waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from queuectld.core.choice import Asker, Head, NotBefore, NothingWaits, Obstacle, Take, Traits, Wait, choose
from queuectld.store.heads import KNOWN, SPARE, Heads

ASKER = Asker("w1")


@dataclass
class Table:
    """The jobs that wait, as a store has them: lane -> time and number of each."""

    waiting: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    looks: int = 0

    def look(self, lane: int, most: int) -> list[tuple[float, int]]:
        self.looks += 1
        return sorted(self.waiting.get(lane, []))[:most]


def filled(table: Table, *lanes: Traits) -> Heads:
    heads = Heads(table.look)
    for number, traits in enumerate(lanes):
        times = [run_at for run_at, _ in table.waiting.get(number, [])]
        heads.add(number, traits, min(times, default=None))
    heads.committed()
    return heads


def taken(heads: Heads, now: float) -> int | None:
    """The number of the job."""
    decision = choose(heads, ASKER, now)
    return decision.head.job if isinstance(decision, Take) else None


def test_jobs_that_are_due_ever_earlier_leave_nothing_behind() -> None:
    table = Table()
    heads = filled(table, *(Traits("default", priority) for priority in range(10)))
    for lane in range(10):
        for run_at in range(10_000, 0, -1):
            heads.waits(lane, float(run_at))
        table.waiting[lane] = [(1.0, lane + 1)]
    assert heads.size < 200
    assert choose(heads, ASKER, 0.5) == Wait((NotBefore(1.0),), 1.0)
    assert taken(heads, 1.0) == 10


def test_a_lane_is_looked_at_once_for_many_leases() -> None:
    table = Table({0: [(0.0, job) for job in range(1, 1001)]})
    heads = filled(table, Traits("default", 0))
    for job in range(1, 1001):
        assert taken(heads, 1.0) == job
        table.waiting[0].remove((0.0, job))
        heads.left(0, job)
    assert choose(heads, ASKER, 1.0) == Wait((NothingWaits(),), None)
    assert table.looks <= 1000 / KNOWN + 1


def test_a_job_that_comes_between_those_that_are_known_is_not_passed_over() -> None:
    table = Table({0: [(float(job), job) for job in range(1, 6)]})
    heads = filled(table, Traits("default", 0))
    assert taken(heads, 10.0) == 1
    heads.committed()
    for run_at, job in ((5.0, 8), (5.0, 0), (3.0, 6), (0.5, 7)):
        table.waiting[0].append((run_at, job))
        heads.waits(0, run_at)
    found = []
    while (first := taken(heads, 10.0)) is not None:
        found.append(first)
        table.waiting[0] = [one for one in table.waiting[0] if one[1] != first]
        heads.left(0, first)
    assert found == [7, 1, 2, 3, 6, 4, 0, 5, 8]


def test_at_the_same_time_a_lower_number_comes_first() -> None:
    table = Table({0: [(5.0, 4), (5.0, 6)]})
    heads = filled(table, Traits("default", 0))
    assert taken(heads, 10.0) == 4
    table.waiting[0].append((5.0, 5))
    heads.waits(0, 5.0)
    table.waiting[0].remove((5.0, 4))
    heads.left(0, 4)
    assert taken(heads, 10.0) == 5


def test_what_a_lane_knew_of_the_time_before_it_was_empty_is_not_used() -> None:
    table = Table({0: [(9.0, 1)], 1: [(7.0, 2)]})
    heads = filled(table, Traits("a", 0), Traits("b", 0))
    heads.left(1, 2)  # so that the other one is looked at
    assert taken(heads, 10.0) == 2
    table.waiting = {1: [(7.0, 2)]}
    heads.left(0, 1)
    heads.left(1, 2)
    table.waiting = {}
    assert taken(heads, 10.0) is None
    table.waiting = {0: [(5.0, 3)], 1: [(7.0, 4)]}
    heads.waits(0, 5.0)
    heads.waits(1, 7.0)
    assert taken(heads, 10.0) == 3


def test_what_is_no_time_is_taken_after_those_that_have_one_and_hides_none() -> None:
    never = float("-inf")
    table = Table({0: [(5.0, 1), (never, 2), (never, 3)]})
    heads = Heads(lambda lane, most: sorted(table.waiting[lane], key=lambda one: (one[0] == never, one))[:most])
    heads.add(0, Traits("default", 0), 5.0)
    for job in (1, 2, 3):
        assert taken(heads, 5.0) == job
        table.waiting[0] = [one for one in table.waiting[0] if one[1] != job]
        heads.left(0, job)
    assert taken(heads, 5.0) is None


def test_a_closed_lane_opens_when_its_first_job_leaves() -> None:
    table = Table({0: [(50.0, 1)], 1: [(60.0, 2)]})
    heads = filled(table, Traits("a", 0), Traits("b", 0))
    assert choose(heads, ASKER, 0.0) == Wait((NotBefore(50.0),), 50.0)
    table.waiting[0].clear()
    heads.left(0, 1)
    assert choose(heads, ASKER, 0.0) == Wait((NotBefore(60.0),), 60.0)


def test_after_a_rollback_the_lanes_that_were_changed_are_looked_at_again() -> None:
    table = Table({0: [(0.0, 1), (0.0, 2)]})
    heads = filled(table, Traits("a", 0))
    assert taken(heads, 0.0) == 1
    heads.left(0, 1)
    heads.add(7, Traits("b", 5))
    heads.waits(7, 0.0)
    heads.rolled_back()
    assert heads.number_of("b", 5) is None
    assert taken(heads, 0.0) == 1


def test_a_job_whose_lease_is_undone_is_the_first_again() -> None:
    """It was known from a transaction before."""
    heads = filled(Table({0: [(0.0, 1), (0.0, 2)]}), Traits("a", 0))
    assert taken(heads, 0.0) == 1
    heads.committed()
    heads.left(0, 1)
    heads.rolled_back()
    assert taken(heads, 0.0) == 1


def test_a_job_that_was_seen_and_is_undone_is_not_taken() -> None:
    table = Table({0: [(5.0, 1)]})
    heads = filled(table, Traits("a", 0))
    table.waiting[0].append((1.0, 2))
    heads.waits(0, 1.0)
    assert taken(heads, 5.0) == 2
    table.waiting[0].remove((1.0, 2))
    heads.rolled_back()
    assert taken(heads, 5.0) == 1


def test_only_what_came_after_the_mark_is_undone() -> None:
    table = Table({})
    heads = filled(table)
    heads.add(1, Traits("a", 0))
    heads.mark()
    heads.add(2, Traits("b", 0))
    heads.remove(1)
    heads.undone()
    assert (heads.number_of("a", 0), heads.number_of("b", 0)) == (1, None)
    heads.rolled_back()
    assert heads.number_of("a", 0) is None


def test_empty_lanes_are_offered_for_removal_faster_than_lanes_are_added() -> None:
    heads = filled(Table())
    lanes: set[int] = set()
    for number in range(1000):
        for empty in heads.removable():
            heads.remove(empty)
            lanes.remove(empty)
        heads.add(number, Traits(f"q{number}", 0))
        lanes.add(number)
        heads.waits(number, 5.0)
        heads.left(number, number)
        heads.committed()
    assert len(lanes) <= SPARE + 2
    assert choose(heads, ASKER, 5.0) == Wait((NothingWaits(),), None)


def test_a_rule_without_a_time_passes_a_lane_over_and_keeps_its_place() -> None:
    """As a limit, a pause or a binding of the worker will."""
    table = Table({0: [(0.0, 1)], 1: [(0.0, 2)], 2: [(9.0, 3)]})
    heads = filled(table, Traits("paused", 5), Traits("free", 0), Traits("free", 9))
    paused = {"paused"}

    def not_paused(head: Head, _asker: Asker, _now: float) -> Obstacle | None:
        return Obstacle(NothingWaits(), None) if head.traits.queue in paused else None

    def not_before(head: Head, _asker: Asker, now: float) -> Obstacle | None:
        return None if head.run_at <= now else Obstacle(NotBefore(head.run_at), head.run_at)

    rules = (not_paused, not_before)
    for _ in range(3):
        decision = choose(heads, ASKER, 1.0, rules)
        assert isinstance(decision, Take)
        assert decision.head.job == 2
    table.waiting[1].clear()
    heads.left(1, 2)
    assert choose(heads, ASKER, 1.0, rules) == Wait((NothingWaits(),), 9.0)
    paused.clear()
    assert taken(heads, 1.0) == 1
