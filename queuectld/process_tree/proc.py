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
    """Z of a process all of which is dead; D of one whose first thread alone is, for which the kernel says Z too."""
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
    """All that can be seen. No snapshot: who forks meanwhile may be missing, so callers look until nothing is left."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (entry := process(int(name))) is not None:
            found[entry.pid] = entry
    return found


def children(pid: int) -> list[int]:
    """Its direct children, dead ones that nobody has collected included.

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
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):  # the last two, by the kernel's age: of a thread
            return None
        raise


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether this very process lives; a zombie does not."""
    entry = process(pid)
    return entry is not None and entry.start_ticks == start_ticks and entry.state not in "ZX"


def is_worker(pid: int, worker: str, state_dir: Path) -> bool:
    """Whether a process was started as that worker of that state directory: by its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        after = words.index(b"queuectld.worker") + 1
        found, _socket, directory = words[after : after + 3]
        return found == worker.encode() and os.path.samefile(directory, state_dir)
    except (OSError, ValueError):
        return False


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


def send(pid: int, number: signal.Signals) -> bool:
    """Signal one process; whether it could be: one that is gone is fine. Never a group, never everybody.

    Raises:
        ValueError: for a pid that kill(2) would take for a group or for all processes, and for init.
    """
    if pid <= 1:
        raise ValueError(f"refusing to signal pid {pid}")
    # One that has become another user (sudo) can't be signalled; the others of its tree must be all the same, and the
    # proof waits for its end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False
