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
"""Looks for new processes of a tree that is being stopped, at most: the worker has to send its heartbeats.

A process that forks and exits faster than that may get no SIGTERM. SIGKILL ends it later.
"""


_LOOKS_AT_LEAST = 3
"""Looks that are taken even if the time of a chase is over: this process may have got no processor meanwhile."""


_NAPS = 50
"""Short waits for a process to stop, beyond the time of a chase, at most."""


_QUIET = 0.003
"""Seconds without a new child after which a chase has caught them, or will not."""


def terminate_descendants(others: Callable[[], Iterable[int]] = tuple) -> None:
    """Send SIGTERM to all processes below this one, and to `others`, as if at one moment.

    The processes are stopped first, until no new one is found. Otherwise a process that a shell starts between the look
    and the signal would get no SIGTERM, and would run on without the shell. After SIGTERM, SIGCONT wakes all of them so
    that they act on it. A process that is started after that, to clean up, gets no signal.
    """
    stopped: dict[int, None] = {}
    end = time.monotonic() + _CHASE
    naps = iter(range(_NAPS))

    def may_wait() -> bool:
        return next(naps, None) is not None or time.monotonic() < end

    for look in range(_LOOKS):
        if look >= _LOOKS_AT_LEAST and time.monotonic() > end:
            break
        table = processes()
        found = descendants([os.getpid()], table) | (set(others()) & set(table))
        fresh = [pid for pid in found if pid not in stopped and table[pid].state not in "ZX"]
        if not fresh:
            break
        # Parents are stopped first. A parent that waits for a stopped child (su does) must not see its child stop.
        for pid in sorted(fresh, key=lambda pid: (table[pid].start_ticks, pid)):
            _stop(pid, may_wait)
            stopped[pid] = None
    for pid in stopped:
        send(pid, signal.SIGTERM)
    # Children are woken first, so that no parent sees a stopped child. Each parent has its own SIGTERM by now, so a
    # shell does not go on as if a child had failed.
    for pid in reversed(stopped):
        send(pid, signal.SIGCONT)


def _stop(pid: int, may_wait: Callable[[], bool]) -> None:
    """Send SIGSTOP to a process and wait until it has stopped, for as long as `may_wait` says so.

    The wait is needed: a process that sleeps in waitpid(2) looks at its children once more before it stops. A process
    in uninterruptible sleep is not waited for.
    """
    if not send(pid, signal.SIGSTOP):
        return
    while (entry := process(pid)) is not None and entry.state in "RS" and may_wait():
        time.sleep(0.0002)


def kill_rounds(find: Callable[[], Iterable[int]]) -> Iterable[int]:
    """Send SIGKILL to what `find` finds, round after round, endlessly; yields how many were found in each round.

    Processes that fork as fast as they can are not ended by killing one after the other, because each death makes room
    for another child. So from the fourth round on, all that are found are stopped before they are killed: a stopped
    process still counts against the limit of processes, and fewer are left that fork.
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
    """Stop children as they appear, until no new one appears, or for `_CHASE` seconds.

    A look at all processes takes longer than a process lives that forks and exits at once. But the child of such a
    process becomes a new child of this process, and is seen here.
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
    """Send SIGKILL to all processes below this one. The caller reaps, and calls again until it has no children."""
    halt(lambda: children(os.getpid()))

    def find() -> Iterable[int]:
        table = processes()
        return [pid for pid in descendants([os.getpid()], table) if table[pid].state not in "ZX"]

    for count, _ in zip(kill_rounds(find), range(_STOP_FIRST_AFTER + 2), strict=False):
        if count == 0:
            return
