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
import stat
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from queuectld.worker import regular_files
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

_NEWEST = 100
"""Orphans that are looked at in a chase: an init that is slow to collect its children has thousands of dead ones."""

_DOUBTS = 50
"""Looks in a row at which processes came and went unseen, but none of the tree's, that count as a proof too."""


class Process(NamedTuple):
    """What /proc/PID/stat says, as far as it matters here; proc(5)."""

    pid: int
    state: str
    """Z of a process all of which is dead; D of one whose first thread alone is, for which the kernel says Z too."""
    parent: int
    session: int
    start_ticks: int


class LockFile(NamedTuple):
    """What a lock's file is known by among the descriptors of a process."""

    name: str
    """Without its directory. A file that is not called so is not looked at."""
    device: int
    inode: int


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


def take_lock(path: Path) -> int:
    """Open and lock a worker's own file; the descriptor is inheritable: its jobs hold the lock too.

    Raises:
        OSError: somebody holds it, or the directory is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock, neither the worker nor anyone who inherited it.

    Nobody can be seen to hold one whose file is gone, or has something else in its place: a job may have done that.

    Raises:
        OSError: that can't be found out now: no descriptor is left, its directory is closed, the disk failed.
    """
    descriptor = regular_files.open_regular(path, os.O_RDWR)
    if descriptor is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _carries(pid: int, marker: bytes, lock: LockFile | None) -> bool:
    """
    Raises:
        ProcessLookupError: it has gone before it could be looked at.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if marker and marker in file.read().split(b"\0"):
                return True
        return lock is not None and lock in _open_of(pid, [lock])
    except PermissionError:
        return False  # another user's: a job that changed its user is found as a descendant or by its cgroup
    except OSError as error:
        raise ProcessLookupError from error


def _open_of(pid: int, locks: Collection[LockFile]) -> set[LockFile]:
    """Which of these files a process has open.

    Raises:
        OSError: it can't be looked at, or has gone.
    """
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/fd/{number}"
            # To ask for a file's status takes an answer of its file system, and one that hangs (NFS) never gives it:
            # so only what is called like a lock is asked for. The name, which the kernel knows, costs no question.
            name = os.path.basename(os.readlink(path)).removesuffix(" (deleted)")
            if any(name == lock.name for lock in locks):
                status = os.stat(path)
                found.update({LockFile(name, status.st_dev, status.st_ino)}.intersection(locks))
    return found


def carried(pid: int, locks: Collection[LockFile]) -> tuple[set[str], set[LockFile]]:
    """What a process is seen to carry: values of MARKER in its environment; which of `locks` it has open."""
    marks: set[str] = set()
    files: set[LockFile] = set()
    prefix = f"{MARKER}="
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        words = os.fsdecode(file.read()).split("\0")
        marks.update(word.removeprefix(prefix) for word in words if word.startswith(prefix) and word != prefix)
    with contextlib.suppress(OSError):
        files = _open_of(pid, locks)
    return marks, files


def lock_identity(path: Path) -> LockFile | None:
    """By what a lock's file is found; None where it is gone, or something else is in its place: a job can do that."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return LockFile(path.name, status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def carriers(mark: str, lock: LockFile) -> list[int]:
    """All processes but this one that carry an attempt's marker or have the file of its lock open, as far as is seen.

    Args:
        mark: the value of MARKER.
        lock: the file.
    """
    marker = f"{MARKER}={mark}".encode()
    found = []
    for pid in _newest_first():
        with contextlib.suppress(ProcessLookupError):
            if pid != os.getpid() and pid > 1 and _carries(pid, marker, lock):
                found.append(pid)
    return found


def _newest_first() -> list[int]:
    """The PIDs of all processes, the newest first: those that are soonest gone. PIDs are given out in a circle."""
    with open("/proc/loadavg", "rb") as file:
        last = int(file.read().split()[-1])
    return sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), key=lambda pid: (last - pid) % 2**22)


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
        for pid in _newest_first():
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
                if _carries(pid, self._marker, self._identity):
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
                        if _carries(pid, self._marker, self._identity):
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
