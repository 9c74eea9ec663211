"""What /proc says of processes, and signals to one of them; proc(5)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """What /proc/PID/stat says, as far as it matters here; proc(5)."""

    pid: int
    state: str
    """A letter of proc(5). Z: all threads of the process are dead. D: at least one thread lives, also where the kernel
    says Z because the first thread is dead."""
    parent: int
    session: int
    start_ticks: int


_UNSEEN = frozenset({errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM})


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
    """The process as it is now, zombies included; None if there is none, or none that may be seen.

    With `hidepid` (proc(5)) a process of another user can't be looked at. It is none of ours then: our own are found by
    what they are to us (children, members of a group) or by what they hold (locks), which needs no look.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError as error:
        if error.errno in _UNSEEN:
            return None
        raise
    # The command's name stands in parentheses and may itself hold any byte: what follows the last one counts.
    fields = line[line.rindex(b")") + 2 :].split()
    state = "D" if fields[0] == b"Z" and int(fields[17]) > 1 else fields[0].decode()
    return Process(pid, state, int(fields[1]), int(fields[3]), int(fields[19]))


def processes() -> dict[int, Process]:
    """All processes that can be seen.

    This is no snapshot. A process that forks during the look may have a child that is missing here, so callers look
    again until they find nothing.
    """
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (entry := process(int(name))) is not None:
            found[entry.pid] = entry
    return found


def children(pid: int) -> list[int]:
    """The direct children of a process, with the dead children that nobody has collected.

    A hundred times quicker than a look at all processes, and complete as long as no child is collected meanwhile.
    """
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError as error:
        if error.errno == errno.ENOENT and process(pid) is not None:  # a kernel without CONFIG_PROC_CHILDREN
            return [entry.pid for entry in processes().values() if entry.parent == pid]
    return found


def open_process(pid: int) -> int | None:
    """A pidfd, which stands for this very process; None where no process has that PID.

    The PID of a process that is gone may be the number of a thread since.

    Raises:
        OSError: it can't be had, as for want of a descriptor.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # For the number of a thread, the kernel says EINVAL or ENOENT, by its version.
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether the process of this PID and start time (clock ticks since boot) lives. A zombie does not live."""
    entry = process(pid)
    return entry is not None and entry.start_ticks == start_ticks and entry.state not in "ZX"


def is_worker(pid: int, worker: str, state_dir: Path) -> bool:
    """Whether the command line of a process says that it is this worker of this state directory."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        after = words.index(b"queuectld.worker") + 1
        found, _socket, directory = words[after : after + 3]
        return found == worker.encode() and os.path.samefile(directory, state_dir)
    except (OSError, ValueError):
        return False


def descendants(roots: Collection[int], table: dict[int, Process]) -> set[int]:
    """The PIDs of all processes below `roots`, without the roots, with zombies."""
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


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to one process, never to a group and never to all processes.

    Returns:
        Whether the kernel took the signal. It does not where the process is gone.

    Raises:
        ValueError: for a pid that kill(2) would take for a group or for all processes, and for init.
    """
    if pid <= 1:
        raise ValueError(f"refusing to signal pid {pid}")
    # A process that has become another user's (sudo) can't be signalled. The other processes of its tree must be
    # signalled all the same. The proof that the tree is gone waits until that process has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False
