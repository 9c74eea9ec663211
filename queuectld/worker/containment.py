"""Process trees: who belongs to an attempt, and how to end all of them with proof.

A worker is a child subreaper (prctl(2)): whatever its job starts, double forks and setsid included, stays below it, so
while the worker lives, "I have no children" proves that the attempt's tree is gone. Where a worker has died, its tree
is found by what its processes carry: the lease's token in their environment, the worker's lock file among their
descriptors, or a living ancestor among those. Its lock being free then proves that nobody who holds it is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from queuectld.worker.cgroups import Group

MARKER = "QUEUECTL_LEASE"
"""Names the variable that carries the lease's token in the environment of every process of an attempt."""


def marker(state_dir: Path, token: str) -> str:
    """The value of MARKER: the token, and whose it is. A copy of a database has its tokens, not its directory."""
    return f"{token}{queue_mark(state_dir)}"


def queue_mark(state_dir: Path) -> str:
    """What all markers of a queue end with, and those of no other do."""
    status = os.stat(state_dir)
    return f"@{status.st_dev:x}-{status.st_ino:x}"


_PR_SET_CHILD_SUBREAPER = 36
_STOP_FIRST_AFTER = 3
"""Rounds of SIGKILL after which a tree that still grows is stopped before it is killed."""


class Process(NamedTuple):
    """What /proc/PID/stat says, as far as it matters here; proc(5)."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int


def become_subreaper() -> None:
    """Orphaned descendants become children of this process instead of init's.

    Raises:
        OSError: the kernel refused (it is there since Linux 3.4).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def boot_id() -> str:
    """Names this boot of the machine; PIDs and start times mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process(pid: int) -> Process | None:
    """The process as it is now, zombies included; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    # The command's name stands in parentheses and may itself hold any byte: what follows the last one counts.
    fields = line[line.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def processes() -> dict[int, Process]:
    """All that can be seen. No snapshot: who forks meanwhile may be missing, so callers look until nothing is left."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (entry := process(int(name))) is not None:
            found[entry.pid] = entry
    return found


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether this very process lives; a zombie does not."""
    entry = process(pid)
    return entry is not None and entry.start_ticks == start_ticks and entry.state not in "ZX"


def descendants(roots: Collection[int], table: dict[int, Process]) -> set[int]:
    """Everyone below `roots`, the roots themselves not included; zombies included."""
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found - set(roots)


def send(pid: int, number: signal.Signals) -> None:
    """Signal one process; one that is gone is fine. Never a group, never everybody.

    Raises:
        ValueError: for a pid that kill(2) would take for a group or for all processes, and for init.
    """
    if pid <= 1:
        raise ValueError(f"refusing to signal pid {pid}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_descendants(number: signal.Signals, others: Iterable[int] = ()) -> None:
    """Signal all that run below this process, and `others`. Stopped ones are woken, to act on it.

    Parents first: a shell that sees its child die before its own signal comes goes on as if the child had failed.
    """
    table = processes()
    found = descendants([os.getpid()], table) | (set(others) & set(table))
    targets = [pid for pid in found if table[pid].state not in "ZX"]
    for pid in sorted(targets, key=lambda pid: (table[pid].start_ticks, pid)):
        send(pid, number)
        if number is not signal.SIGKILL:
            send(pid, signal.SIGCONT)


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


def kill_descendants() -> None:
    """SIGKILL all that run below this process, once; the caller reaps and calls again until it has no children."""

    def find() -> Iterable[int]:
        table = processes()
        return [pid for pid in descendants([os.getpid()], table) if table[pid].state not in "ZX"]

    for count, _ in zip(kill_rounds(find), range(_STOP_FIRST_AFTER + 2), strict=False):
        if count == 0:
            return


def take_lock(path: Path) -> int:
    """Open and lock a worker's own file; the descriptor is for its jobs to inherit.

    Raises:
        OSError: somebody holds it, or the directory is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock, neither the worker nor anyone who inherited it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _carries(pid: int, marker: bytes, lock: tuple[int, int] | None) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if marker and marker in file.read().split(b"\0"):
                return True
        if lock is not None:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{name}")
                    if (status.st_dev, status.st_ino) == lock:
                        return True
    except OSError:
        # Gone meanwhile, or another user's: a job that changed its user is found as a descendant or by its cgroup.
        return False
    return False


def _living(pids: Iterable[int], table: dict[int, Process]) -> list[int]:
    return [pid for pid in pids if pid > 1 and table[pid].state not in "ZX"]


def end_lost_tree(
    *,
    worker: tuple[int, int],
    lock: Path,
    mark: str,
    group: Group | None,
    orphans: Callable[[dict[int, Process]], Iterable[int]],
    give_up: Callable[[], bool],
) -> bool:
    """End a worker that vanished or fell silent, and all that it started; returns when they are proven gone.

    Args:
        worker: its (pid, start ticks).
        lock: its lock file.
        mark: what its job's processes carry as MARKER, or "".
        group: the cgroup of the attempt, where it has one.
        orphans: picks out of all processes those that must be what a dead worker left, whatever they carry.
        give_up: asked between rounds; a process in uninterruptible sleep can take for ever.

    Returns:
        True with the proof, False if it gave up.
    """
    pid, start_ticks = worker
    carried = f"{MARKER}={mark}".encode() if mark else b""
    try:
        status = os.stat(lock)
        identity = (status.st_dev, status.st_ino)
    except FileNotFoundError:
        identity = None
    strangers: set[tuple[int, int]] = set()

    def find() -> Iterable[int]:
        table = processes()
        roots = {entry.pid for entry in table.values() if (entry.pid, entry.start_ticks) == (pid, start_ticks)}
        roots.update(orphans(table))
        if group is not None:
            group.kill()
            roots.update(set(group.processes()) & set(table))
        found = _living(roots | descendants(roots, table), table)
        if found:
            return found  # at once: who forks on and on is caught by a quick look or not at all
        for entry in table.values():
            # What a process carries is looked up once: whoever was none of the tree's does not become one.
            if entry.pid != os.getpid() and (entry.pid, entry.start_ticks) not in strangers:
                if _carries(entry.pid, carried, identity):
                    roots.add(entry.pid)
                else:
                    strangers.add((entry.pid, entry.start_ticks))
        return _living(roots | descendants(roots, table), table)

    pause = 0.005
    for count in kill_rounds(find):
        empty = group is None or group.is_empty()
        if count == 0 and empty and not is_alive(pid, start_ticks) and lock_is_free(lock):
            if group is not None:
                group.remove()
            return True
        if give_up():
            return False
        time.sleep(pause)  # SIGKILL takes effect in its own time, and nothing tells when the last of a tree is gone
        pause = min(pause * 2, 1.0)
    raise AssertionError("unreachable: the rounds do not end")
