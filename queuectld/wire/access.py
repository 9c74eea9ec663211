"""Who may connect, as the kernel tells who is at the other end."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("iII")
_libc = ctypes.CDLL(None, use_errno=True)
_SO_PEERGROUPS = 59  # socket(7); not in the socket module


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end, as the kernel saw it at connect(2)."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: the daemon's own user, root, and the members of a group if one is named."""

    uid: int
    group: int | None

    def allows(self, peer: Credentials) -> bool:
        return peer.uid in (0, self.uid) or (self.group is not None and self.group in peer.groups)


def credentials(peer: socket.socket) -> Credentials:
    pid, uid, gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    groups = {gid, *_groups_of(peer)}
    return Credentials(pid, uid, frozenset(groups))


def _groups_of(peer: socket.socket) -> Sequence[int]:
    """All of them, up to the 65,536 that Linux knows. Python's getsockopt() takes no answer of over 1,024 bytes."""
    size = ctypes.c_uint32(1024)
    while True:
        buffer = ctypes.create_string_buffer(size.value)
        found = _libc.getsockopt(peer.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size))
        if found == 0:
            return struct.unpack(f"{size.value // 4}I", buffer.raw[: size.value])
        if ctypes.get_errno() != errno.ERANGE or size.value <= len(buffer):
            return ()  # the primary one has to do
