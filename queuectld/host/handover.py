"""What a daemon passes to itself when it re-executes in place: locks, sockets, and what clients have asked so far.

The descriptors stay open across exec(2); which is which stands in a memfd whose number is in the environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping

import msgspec

from queuectld import failpoints

VARIABLE = "QUEUECTLD_HANDOVER"


class Passed(msgspec.Struct, frozen=True, array_like=True):
    """A client's connection."""

    descriptor: int
    waiting: bytes
    """What was read from it and is not answered."""
    too_long: bool = False
    """The line that comes after that is too long: it was refused, and the rest of it is to be dropped."""


class Handover(msgspec.Struct, frozen=True):
    """Descriptor numbers, and what the successor can't find out by itself."""

    lock: int
    listener: int
    generation: int
    started_at: float
    descriptors: int
    """The soft limit of open files before the first start raised it."""
    umask: int
    """Before the first start set its own."""
    socket_identity: tuple[int, int] | None
    """Device and inode of a socket file that is ours to remove; None for systemd's."""
    connections: list[Passed]
    home: str = ""
    """Where the daemon was asked to listen, and `address`: where it listens. "": an older daemon did not say."""
    address: str = ""
    others_too: bool = False
    """Children may come to this process that no worker has left."""
    unclean: bool = False
    """The last stop was not clean, and the database has not been checked to the end yet."""
    directory: int = -1
    """The state directory, locked; -1 where it can't be, and from an older daemon."""


def pass_on(handover: Handover, environ: MutableMapping[str, str]) -> None:
    """Make everything survive an exec: call this last."""
    content = msgspec.json.encode(handover)
    memory = os.memfd_create("queuectld-handover", 0)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(content)
    for descriptor in (memory, *_descriptors(handover)):
        os.set_inheritable(descriptor, True)
    environ[VARIABLE] = str(memory)


def take_over(environ: MutableMapping[str, str]) -> Handover | None:
    """What the process before this exec passed on; None in a process that was started in the usual way."""
    given = environ.pop(VARIABLE, "")
    if not given.isdecimal():
        return None
    failpoints.hit("reexec.executed")
    memory = int(given)
    size = os.fstat(memory).st_size
    handover = msgspec.json.decode(os.pread(memory, size, 0), type=Handover)
    os.close(memory)
    for descriptor in _descriptors(handover):
        # One that its peer has closed is still a descriptor; one that is gone can only be a fault, and is passed over.
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return handover


def _descriptors(handover: Handover) -> list[int]:
    held = [handover.lock, handover.listener] + ([handover.directory] if handover.directory >= 0 else [])
    return held + [connection.descriptor for connection in handover.connections]
