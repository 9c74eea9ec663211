"""Control groups: where a part of the cgroup v2 tree is ours, each attempt gets a group of its own.

A process can leave its session, its parents and its descriptors, but not its group: killing the group ends all of it at
once, however fast it forks, and an empty group is the proof. cgroups(7), and cgroup-v2 in the kernel's documentation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_PROBE = "probe-"
_MARKS = ("user.delegate", "trusted.delegate")
"""Extended attributes by which systemd says that a group is its service's to divide; systemd's CGROUP_DELEGATION."""

_PREFIX = "attempt-"


def own_group() -> Path | None:
    """The cgroup v2 directory that this process is in; None where there is no such tree."""
    mount = None
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            fields = left.split()
            mount, root = Path(fields[4]), fields[3]
            break
    if mount is None:
        return None
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            path = line[3:]
            if root != "/" and path.startswith(root):
                path = path[len(root) :]
            return mount / path.lstrip("/")
    return None


def _lines(path: str) -> list[str]:
    """A file of the kernel's that holds names, which may be any bytes."""
    return os.fsdecode(Path(path).read_bytes()).split("\n")


def delegated_group(environ: Mapping[str, str]) -> Path | None:
    """The group that systemd has delegated to this service: the one this process is in, or the one above it.

    The machine's systemd marks such a group. A user's systemd marks none: there our unit, which asks for the
    delegation, tells it with $QUEUECTLD_DELEGATED.
    """
    own = own_group()
    told = environ.get("QUEUECTLD_DELEGATED") == "yes"
    for group in (own, own.parent) if own is not None else ():
        if ((told and group.suffix == ".service") or _is_marked(group)) and is_usable(group):
            return group
    return None


def _is_marked(group: Path) -> bool:
    for name in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def is_usable(group: Path) -> bool:
    """Whether groups can be made below it, be killed (cgroup.kill is there since Linux 5.14), be entered and be left.

    Who owns the group may make others in it, but to move a process takes the right to write where it comes from too.
    """
    probe = group / f"{_PROBE}{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        home = own_group()
        return (probe / "cgroup.kill").exists() and home is not None and _can_be_entered(probe, home)
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def _can_be_entered(group: Path, home: Path) -> bool:
    import subprocess  # noqa: PLC0415 - for the daemon alone; workers are many, and small

    # By another process: this one would be stuck where it can enter and not leave.
    script = 'echo 0 > "$1/cgroup.procs" && echo 0 > "$2/cgroup.procs"'
    command = ["/bin/sh", "-c", script, "sh", str(group), str(home)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


class Group:
    """The group of one attempt; `mark` tells it from those of other queues, and of this one before a restore."""

    def __init__(self, parent: Path, mark: str) -> None:
        self.path = parent / f"{_PREFIX}{mark}"

    def make(self) -> None:
        """Make it.

        Raises:
            OSError: it can't be made: too many groups, or the parent is gone.
        """
        self.path.mkdir()

    @contextmanager
    def entered(self, home: Path) -> Iterator[None]:
        """Be in it: what is started meanwhile is born inside. `home` is the group to go back to.

        Raises:
            OSError: it can't be entered.
            RuntimeError: it can't be left. Something may run in it by then, so this is no mere failure to start.
        """
        _move_self(self.path)
        try:
            yield
        finally:
            try:
                _move_self(home)
            except OSError as error:
                raise RuntimeError(f"can't go back to the control group {home}: {error}") from error

    def processes(self) -> list[int]:
        """Who is in it, and in groups that the job has made below it."""
        found: list[int] = []
        for directory in self._all():
            with contextlib.suppress(OSError):
                found += [int(line) for line in (directory / "cgroup.procs").read_text().split()]
        return found

    def kill(self) -> None:
        """SIGKILL all of it at once, groups below included."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    def is_empty(self) -> bool:
        """Whether nobody lives in it or below; also where it does not exist."""
        try:
            return "populated 0" in (self.path / "cgroup.events").read_text()
        except OSError:
            return not self.path.exists()

    def remove(self) -> None:
        """Remove it, once it is empty."""
        for directory in reversed(list(self._all())):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def _all(self) -> Iterator[Path]:
        for directory, _names, _files in os.walk(self.path):
            yield Path(directory)


def _move_self(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")


def remove_empty(parent: Path, queue: str, in_use: Collection[str]) -> None:
    """Remove the empty groups that attempts of the past have left.

    An empty one may also be about to be entered: those of other queues are not touched, nor those `in_use`.

    Args:
        parent: where groups are made.
        queue: what the marks of this queue end with.
        in_use: marks of attempts that a worker may be starting at this moment.
    """
    for path in parent.glob(f"{_PREFIX}*{queue}"):
        mark = path.name.removeprefix(_PREFIX)
        group = Group(parent, mark)
        if mark not in in_use and group.is_empty():
            group.remove()
    for probe in parent.glob(f"{_PROBE}*"):
        # Of a daemon that was killed while it tried; another that tries just now is alive.
        if not Path(f"/proc/{probe.name.removeprefix(_PROBE)}").exists():
            with contextlib.suppress(OSError):
                probe.rmdir()
