"""Ending the tree of a worker that lives, from inside the worker.

A worker is a child subreaper (prctl(2)): whatever its job starts, double forks and setsid included, stays below it, so
while the worker lives, "I have no children" proves that the attempt's tree is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable

from queuectld.process_tree.proc import children, descendants, process, processes, send

_STOP_FIRST_AFTER = 3
"""Rounds of SIGKILL after which a tree that still grows is stopped before it is killed."""


_CHASE = 0.5
"""Seconds of one chase after children that fork and exit as fast as they can, at most."""


_LOOKS = 10
"""Looks in a row for what is new of a tree that is being stopped: the worker has its heartbeats to send.

Who forks and exits faster than that may get no SIGTERM: SIGKILL has to end it.
"""


_LOOKS_AT_LEAST = 3


_NAPS = 50
"""How often a process may be waited for beyond the time of a chase."""


_QUIET = 0.003
"""Seconds without a new child after which a chase has caught them, or will not."""


def terminate_descendants(others: Callable[[], Iterable[int]] = tuple) -> None:
    """SIGTERM all that run below this process, and `others`, as if at one moment; stopped ones are woken, to act on it.

    They are stopped first, until nobody new is found: what a shell starts between being seen and being signalled would
    otherwise get no signal, and run on without the shell. What somebody starts to clean up after SIGTERM gets none.
    """
    stopped: dict[int, None] = {}
    end = time.monotonic() + _CHASE
    naps = iter(range(_NAPS))

    def may_wait() -> bool:
        return next(naps, None) is not None or time.monotonic() < end

    for look in range(_LOOKS):
        # Time alone does not tell: this process may have been kept waiting all the while.
        if look >= _LOOKS_AT_LEAST and time.monotonic() > end:
            break
        table = processes()
        found = descendants([os.getpid()], table) | (set(others()) & set(table))
        fresh = [pid for pid in found if pid not in stopped and table[pid].state not in "ZX"]
        if not fresh:
            break
        # Parents first, each until it has stopped: those that wait for a child to stop (su does) must not see it.
        for pid in sorted(fresh, key=lambda pid: (table[pid].start_ticks, pid)):
            _stop(pid, may_wait)
            stopped[pid] = None
    for pid in stopped:
        send(pid, signal.SIGTERM)
    # Children first, for the same reason. By now their parents have signals of their own to act on, so a shell does not
    # go on as if a child had failed.
    for pid in reversed(stopped):
        send(pid, signal.SIGCONT)


def _stop(pid: int, may_wait: Callable[[], bool]) -> None:
    """SIGSTOP a process, and wait until it has stopped, unless the kernel keeps it, as long as `may_wait` says so.

    Signals come in their own time: one that is in waitpid(2) looks at its children once more before its own.
    """
    if not send(pid, signal.SIGSTOP):
        return
    while (entry := process(pid)) is not None and entry.state in "RS" and may_wait():
        time.sleep(0.0002)


def kill_rounds(find: Callable[[], Iterable[int]]) -> Iterable[int]:
    """SIGKILL what `find` finds, round by round; yields how many were found in each, endlessly.

    Who forks as fast as it can outruns killing one by one, because each death makes room for another child. So after
    some rounds all that is found is stopped first: the stopped keep their places, and those that still fork get fewer.
    """
    rounds = 0
    while True:
        rounds += 1
        targets = set(find())
        if rounds > _STOP_FIRST_AFTER:
            stopped: set[int] = set()
            while fresh := targets - stopped:
                for pid in fresh:
                    send(pid, signal.SIGSTOP)
                stopped |= fresh
                targets = set(find())
            targets |= stopped
        for pid in targets:
            send(pid, signal.SIGKILL)
        yield len(targets)


def halt(find_children: Callable[[], Iterable[int]]) -> None:
    """Stop children as they come, until no new one comes: ahead of a look at all processes, which takes longer.

    Whoever forks and exits at once is gone before such a look has come to it; but its child is a new child here.
    """
    seen: set[int] = set()
    began = quiet_since = time.monotonic()
    while (now := time.monotonic()) - quiet_since < _QUIET and now - began < _CHASE:
        fresh = set(find_children()) - seen
        for pid in fresh:
            send(pid, signal.SIGSTOP)
        if fresh:
            seen |= fresh
            quiet_since = time.monotonic()


def kill_descendants() -> None:
    """SIGKILL all that run below this process, once; the caller reaps and calls again until it has no children."""
    halt(lambda: children(os.getpid()))

    def find() -> Iterable[int]:
        table = processes()
        return [pid for pid in descendants([os.getpid()], table) if table[pid].state not in "ZX"]

    for count, _ in zip(kill_rounds(find), range(_STOP_FIRST_AFTER + 2), strict=False):
        if count == 0:
            return
