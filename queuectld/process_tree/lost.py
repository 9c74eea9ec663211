"""Ending the tree of a worker that has died, from inside the daemon, with the proof that nothing is left of it.

The tree is found by what its processes carry: the lease's token in their environment, the worker's lock file among
their descriptors, or a living ancestor among those. The lock being free then proves that nobody who holds it is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from queuectld.process_tree.cgroups import Group
from queuectld.process_tree.living import halt, kill_rounds
from queuectld.process_tree.marks import MARKER, carries, lock_identity, lock_is_free, newest_first
from queuectld.process_tree.proc import Process, children, descendants, is_alive, process, processes, send

_NEWEST = 100
"""Orphans that are looked at in a chase, at most: an init that is slow to collect its children has thousands."""


_DOUBTS = 50
"""Looks in a row that count as a proof although processes came and went unseen in each of them."""


def _living(roots: Collection[int], table: dict[int, Process]) -> list[int]:
    """The PIDs of those among the roots, and among all processes below the roots, that live."""
    everyone = {*roots, *descendants(roots, table)}
    return [pid for pid in everyone if pid > 1 and table[pid].state not in "ZX"]


class _LostTree:
    """What is left of a worker that vanished or fell silent, looked for anew each time.

    Attributes:
        orphaned: at the last look, this process had a child that the worker may have left. A dead child counts too: it
            may have had a child itself, which is a child of this process now.
        doubtful: at the last look, a process was gone before it could be looked at.
    """

    def __init__(
        self,
        worker: tuple[int, int],
        lock: Path,
        mark: str,
        group: Group | None,
        orphans: Callable[[], Iterable[int]],
    ) -> None:
        self.orphaned = self.doubtful = False
        self._pid, self._start_ticks = worker
        self._lock = lock
        self._marker = f"{MARKER}={mark}".encode() if mark else b""
        self._group = group
        self._orphans = orphans
        self._not_of_it: dict[int, int] = {}
        """PID -> start time of each process that was looked at and carries nothing of this tree."""
        self._adopters: set[int] = set()
        """PIDs of the processes that get the orphans of this tree: init, mostly."""
        self._identity = lock_identity(lock)
        self._found: dict[int, int] = {}
        """PID -> start time of each process that was found so far. They are waited for, whatever they carry by now."""

    def find(self) -> list[int]:
        """The PIDs of the processes of the tree that live."""
        if self._group is not None:
            self._group.kill()  # first of all: no process of the group can outrun it
        halt(self._orphans)
        if self._adopters:
            looked_at: set[int] = set()
            halt(lambda: self._adopted(looked_at))
        orphans = set(self._orphans())
        self.orphaned = bool(orphans)
        table = processes()
        roots = orphans & set(table)
        roots.update(pid for pid, ticks in self._found.items() if pid in table and table[pid].start_ticks == ticks)
        if self._pid in table and table[self._pid].start_ticks == self._start_ticks:
            roots.add(self._pid)
        if self._group is not None:
            roots.update(set(self._group.processes()) & set(table))
        self.doubtful = False
        found = _living(roots, table)
        # All other processes are looked at only where none was found so far, and only where there was an attempt whose
        # marker or lock they could carry.
        if not found and (self._marker or not lock_is_free(self._lock)):
            found = _living(self._marked(table), table)
        self._found.update((pid, table[pid].start_ticks) for pid in found)
        return found

    def _marked(self, table: dict[int, Process]) -> set[int]:
        """The PIDs of processes that carry the marker or the lock. Each is stopped at once, and added to the table."""
        found = set()
        for pid in newest_first():
            known = self._not_of_it.get(pid)
            if pid == os.getpid() or (known is not None and pid in table and table[pid].start_ticks == known):
                continue  # what a process carries is looked up once: a process can't become part of the tree later
            entry = process(pid)
            if entry is None:
                # A process that is there and hidden is another user's. One that is gone may have been of the tree.
                self.doubtful = self.doubtful or (known is None and not os.path.exists(f"/proc/{pid}"))
                continue
            self._not_of_it[pid] = entry.start_ticks
            try:
                if carries(pid, self._marker, self._identity):
                    send(pid, signal.SIGSTOP)
                    table[pid] = entry
                    found.add(pid)
                    del self._not_of_it[pid]
                    self._adopters.add(entry.parent)
            except ProcessLookupError:
                self.doubtful = True
        return found

    def _adopted(self, looked_at: set[int]) -> list[int]:
        """PIDs of the tree's newest processes that became children of `_adopters`, but for those in `looked_at`."""
        found = []
        for adopter in self._adopters:
            for pid in reversed(children(adopter)[-_NEWEST:]):
                if pid not in looked_at and pid != os.getpid():
                    looked_at.add(pid)
                    with contextlib.suppress(ProcessLookupError):
                        if carries(pid, self._marker, self._identity):
                            send(pid, signal.SIGSTOP)
                            found.append(pid)
        return found

    def is_gone(self) -> bool:
        """Whether the group is empty, the worker dead and its lock free. `orphaned` and `doubtful` say the rest."""
        empty = self._group is None or self._group.is_empty()
        return empty and not is_alive(self._pid, self._start_ticks) and lock_is_free(self._lock)


def end_lost_tree(
    *,
    worker: tuple[int, int],
    lock: Path,
    mark: str,
    group: Group | None,
    orphans: Callable[[], Iterable[int]],
    give_up: Callable[[], bool],
) -> bool:
    """End a worker that vanished or fell silent, and all that it started; returns when they are proven gone.

    Args:
        worker: its (pid, start ticks).
        lock: its lock file.
        mark: what its job's processes carry as MARKER, or "".
        group: the cgroup of the attempt, where it has one.
        orphans: children of this process, dead or alive, that this worker may have left, whatever they carry.
        give_up: asked between rounds; a process in uninterruptible sleep can take for ever.

    Returns:
        True with the proof, False if it gave up.
    """
    tree = _LostTree(worker, lock, mark, group, orphans)
    pause, doubts = 0.005, 0
    for count in kill_rounds(tree.find):
        if count == 0 and not tree.orphaned and tree.is_gone():
            # Short-lived processes of others make a look doubtful too. Processes of the tree would not go unseen in so
            # many looks.
            doubts = doubts + 1 if tree.doubtful else _DOUBTS
            if doubts >= _DOUBTS:
                if group is not None:
                    group.remove()
                return True
        else:
            doubts = 0
        if give_up():
            return False
        time.sleep(pause)  # SIGKILL takes effect in its own time, and nothing tells when the last of a tree is gone
        if not doubts:
            pause = min(pause * 2, 1.0)
    raise AssertionError("unreachable: the rounds do not end")
