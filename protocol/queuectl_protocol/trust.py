"""Who could put something else in the place of a socket: everybody who may rename or replace a part of its path."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False  # typing's own costs a client a tenth of its time
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Protocol

    class Status(Protocol):
        """What lstat(2) tells, as far as it matters here."""

        @property
        def st_mode(self) -> int: ...

        @property
        def st_uid(self) -> int: ...

        @property
        def st_gid(self) -> int: ...


MAX_LINKS = 40
"""Symbolic links on one path, as Linux follows them."""

UNMAPPED = 65534
"""The user who owns what belongs to nobody inside of a user namespace: what is root's outside, above all."""


def trusted(*users: int, uid_map: str) -> set[int]:
    """The users, and root.

    Args:
        users: their UIDs.
        uid_map: content of /proc/self/uid_map.
    """
    everybody = uid_map.split() == ["0", "0", "4294967295"]
    return {0, *users} if everybody else {0, UNMAPPED, *users}


def replaceable(
    directory: str,
    users: Collection[int],
    group: int,
    lstat: Callable[[str], Status],
    readlink: Callable[[str], str],
) -> str | None:
    """The first part of the way to `directory` that somebody but `users` could replace; None if there is none.

    Every directory from `/` on, and every symbolic link, has to belong to one of the users. A directory must not be
    writable by others, unless it has the sticky bit: then nobody but the owners can rename or remove what is in it.

    Args:
        directory: absolute.
        users: those who are trusted, by UID.
        group: whose members may write too: the own one.
        lstat: tells of a file, not following a link.
        readlink: tells where a link leads.

    Raises:
        OSError: a part can't be looked at.
    """
    here, parts, links = "/", _parts(directory), 0
    if _is_replaceable(lstat(here), users, group):
        return here
    while parts:
        name = parts.pop(0)
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        status = lstat(there)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if status.st_uid not in users or links > MAX_LINKS:
                return there
            target = readlink(there)
            parts = [*_parts(target), *parts]
            here = "/" if target.startswith("/") else here
            continue
        if _is_replaceable(status, users, group):
            return there
        here = there
    return None


def _parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _is_replaceable(status: Status, users: Collection[int], group: int) -> bool:
    if status.st_uid not in users:
        return True
    if status.st_mode & stat.S_ISVTX:
        return False
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, group)
    return bool(by_group or status.st_mode & stat.S_IWOTH)
