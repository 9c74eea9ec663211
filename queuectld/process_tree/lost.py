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
"""Orphans that are looked at in a chase: an init that is slow to collect its children has thousands of dead ones."""


_DOUBTS = 50
"""Looks in a row at which processes came and went unseen, but none of the tree's, that count as a proof too."""


def _living(roots: Collection[int], table: dict[int, Process]) -> list[int]:
    """Those of the roots, and of all below them, that live."""
    everyone = {*roots, *descendants(roots, table)}
    return [pid for pid in everyone if pid > 1 and table[pid].state not in "ZX"]


class _LostTree:
    """What is left of a worker that vanished or fell silent, looked for anew each time.

    Attributes:
        orphaned: at the last look, a child was there that it may have left. Even a dead one may have had a child, and
            that is a child of this process since.
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
        """Start times of all that were looked at and carry nothing of this tree, by PID."""
        self._adopters: set[int] = set()
        """Who gets the orphans of this tree: init, mostly."""
        self._identity = lock_identity(lock)
        self._found: dict[int, int] = {}
        """Start times of all that were found so far: they, and whom they leave, are waited for, whatever they carry."""

    def find(self) -> list[int]:
        """Who lives of it."""
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
            self._group.kill()
            roots.update(set(self._group.processes()) & set(table))
        self.doubtful = False
        found = _living(roots, table)
        # All others need no look yet where there is somebody; and none at all where there was no attempt that anybody
        # could carry something of.
        if not found and (self._marker or not lock_is_free(self._lock)):
            found = _living(self._marked(table), table)
        self._found.update((pid, table[pid].start_ticks) for pid in found)
        return found

    def _marked(self, table: dict[int, Process]) -> set[int]:
        """Those that carry the marker or the lock. They are added to the table, and stopped before they are gone."""
        found = set()
        for pid in newest_first():
            known = self._not_of_it.get(pid)
            if pid == os.getpid() or (known is not None and pid in table and table[pid].start_ticks == known):
                continue  # what a process carries is looked up once: whoever was none of the tree's does not become one
            entry = process(pid)
            if entry is None:
                # One that is there and hidden is another user's. One that is gone may have been of the tree.
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
        """Those of the tree whom others have got as orphans, and who were not looked at before; the newest only."""
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
        """Whether, if nobody was found, that was everybody; but for what `orphaned` and `doubtful` say."""
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
            # Short-lived processes of others leave a doubt too; but those of the tree would not go unseen for so long.
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
