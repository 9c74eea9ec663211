"""Who could put something else in the place of a socket."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from queuectl_protocol.trust import replaceable, trusted

OWN, OTHER, GROUP = 1000, 1001, 1000


class Entry(NamedTuple):
    """A directory; a link where it leads somewhere."""

    st_uid: int = 0
    permissions: int = 0o755
    st_gid: int = 0
    target: str = ""

    @property
    def st_mode(self) -> int:
        return (stat.S_IFLNK if self.target else stat.S_IFDIR) | self.permissions


def look(directory: str, **entries: Entry) -> str | None:
    """A directory on a machine with these entries, by their last names; the others are root's."""

    def lstat(path: str) -> Entry:
        return entries.get(Path(path).name, Entry())

    def readlink(path: str) -> str:
        return entries[Path(path).name].target

    return replaceable(directory, {0, OWN}, GROUP, lstat, readlink)


OPEN = Entry(0, 0o777)
STICKY = Entry(0, 0o1777)


@pytest.mark.parametrize(
    ("directory", "entries", "expected"),
    [
        ("/run/queuectl", {}, None),
        ("/home/me/run", {"me": Entry(OWN, 0o700), "run": Entry(OWN)}, None),
        ("/home/other/mine", {"other": Entry(OTHER), "mine": Entry(OWN, 0o700)}, "/home/other"),
        ("/scratch/me", {"scratch": OPEN, "me": Entry(OWN, 0o700)}, "/scratch"),
        ("/tmp/me", {"tmp": STICKY, "me": Entry(OWN, 0o700)}, None),
        ("/tmp/me", {"tmp": STICKY, "me": Entry(OTHER, 0o777)}, "/tmp/me"),
        ("/tmp/me", {"tmp": Entry(OTHER, 0o1777), "me": Entry(OWN)}, "/tmp"),
        ("/home/me", {"me": Entry(OWN, 0o775, GROUP)}, None),
        ("/home/me", {"me": Entry(OWN, 0o775, 50)}, "/home/me"),
        ("/home/me", {"me": Entry(OWN, 0o2775, 50)}, "/home/me"),
        ("/var/run/q", {"run": Entry(0, 0o777, 0, "/tmp"), "tmp": STICKY}, None),
        ("/tmp/link/q", {"tmp": STICKY, "link": Entry(OTHER, 0o777, 0, "/home")}, "/tmp/link"),
        ("/a/link/q", {"link": Entry(0, 0o777, 0, "../other/x"), "other": Entry(OTHER)}, "/other"),
        ("/a/link/q", {"link": Entry(0, 0o777, 0, "link")}, "/a/link"),
        ("/a/../other/q", {"other": Entry(OTHER)}, "/other"),
    ],
)
def test_the_first_part_that_others_could_replace(
    directory: str, entries: dict[str, Entry], expected: str | None
) -> None:
    assert look(directory, **entries) == expected


def test_root_is_trusted_also_where_a_user_namespace_hides_it() -> None:
    assert trusted(OWN, uid_map="         0          0 4294967295\n") == {0, OWN}
    assert trusted(OWN, uid_map="      1000       1000          1\n") == {0, OWN, 65534}
