"""Children of the daemon that it did not start: which of them a lost worker has left, and which one.

The daemon is a subreaper, so what a dead worker leaves becomes its child. Each such child is attributed once, when it
is first seen: by the mark in its environment, or by the lock of a worker that it has open. One that carries neither can
only have been left by a worker that was dead by then, unless others have their children here too: as a container's
PID 1, or started by exec in a process that had children. Then it belongs to nobody that is known, and is left alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from queuectld.process_tree import marks, proc


def may_get_others() -> bool:
    """Whether this process may have children that no worker of it has left. Asked before it starts anything."""
    return os.getpid() == 1 or bool(proc.children(os.getpid()))


@dataclass(frozen=True, slots=True)
class Suspect:
    """A worker that a child may have been left by.

    Attributes:
        worker: its id.
        mark: of its attempt, or "".
        lock: the file of its lock; None if that is gone.
        is_dead: it may have left children.
    """

    worker: str
    mark: str
    lock: marks.LockFile | None
    is_dead: bool


class Orphans:
    """Remembers to whom each child was attributed. Used by several threads.

    Args:
        others_too: what `may_get_others` said.
    """

    def __init__(self, *, others_too: bool) -> None:
        self._others_too = others_too
        self._lock = threading.Lock()
        self._owners: dict[tuple[int, int], frozenset[str]] = {}
        """(PID, start time) of a child -> the workers that may have left it."""

    def of(self, worker: str, children: Iterable[int], suspects: Callable[[], Collection[Suspect]]) -> list[int]:
        """Those of `children`, dead or alive, that `worker` may have left.

        Where others have no children here, each child is stopped as soon as it is seen: a dead worker has left it, so
        it is about to be killed, and one that forks and exits at once would be gone before its owner is found.

        Args:
            worker: its id.
            children: all children of this process that it did not start as workers, the oldest first.
            suspects: all workers; asked after the children were listed, so one that has left any of them is dead in it.
        """
        session = os.getsid(0)
        found: list[int] = []
        seen: dict[tuple[int, int], None] = {}
        with self._lock:
            for pid in reversed(list(children)):
                entry = proc.process(pid)
                if entry is not None and entry.session == session:
                    continue  # started by this process; nobody can join its session who was started by a worker
                child = (pid, entry.start_ticks if entry else 0)
                seen[child] = None
                if not self._others_too and child not in self._owners and entry is not None and entry.state not in "ZX":
                    proc.send(pid, signal.SIGSTOP)
            for child in seen:
                pid, _ = child
                if child not in self._owners:
                    self._owners[child] = self._attributed(pid, suspects())
                if worker in self._owners[child]:
                    found.append(pid)
            self._owners = {child: owners for child, owners in self._owners.items() if child in seen}
        return found

    def _attributed(self, pid: int, suspects: Collection[Suspect]) -> frozenset[str]:
        locks = [suspect.lock for suspect in suspects if suspect.lock is not None]
        values, files = marks.carried(pid, locks)
        by_what_it_carries = {suspect.worker for suspect in suspects if suspect.mark in values or suspect.lock in files}
        if by_what_it_carries:
            return frozenset(by_what_it_carries)
        if self._others_too:
            return frozenset()
        return frozenset(suspect.worker for suspect in suspects if suspect.is_dead)
