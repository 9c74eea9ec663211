"""The file of the listening socket: made where nobody else can replace it, for those who may connect."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from queuectl_protocol import trust
from queuectl_protocol.paths import MAX_SOCKET_PATH
from queuectld.host.names import check_name, file_identity
from queuectld.host.start_error import StartError


def group_id(name: str | None) -> int | None:
    """
    Raises:
        StartError: there is no such group.
    """
    if name is None:
        return None
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise StartError(f"there is no group {name!r}", "`getent group` lists them") from None


def group_of(listener: socket.socket) -> int | None:
    """The group that may connect to a socket which somebody else has made; None if its file lets no group in."""
    name = os.fsdecode(listener.getsockname())
    if not name.startswith("/"):  # in the abstract namespace, or without a name
        return None
    status = Path(name).stat()
    return status.st_gid if status.st_mode & stat.S_IWGRP else None


def listen(path: Path, group: int | None) -> socket.socket:
    """A listening Unix socket at `path`, mode 0600, or 0660 for `group`. The caller holds the state directory's lock.

    A socket file that nobody listens on is what a killed daemon left, and is replaced.

    Raises:
        StartError: somebody listens there, or it can't be made.
    """
    check_name(path, "the socket", "give --socket another path")
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:  # no descriptor or memory left
        raise StartError(f"can't listen on {path}: {error.strerror}") from None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_way(path.parent)
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A path of the kernel's own for one that is too long for it (unix(7): 107 bytes).
            long = len(os.fsencode(path)) > MAX_SOCKET_PATH
            name = f"/proc/self/fd/{directory}/{path.name}" if long else os.fsdecode(path)
            if len(os.fsencode(name)) > MAX_SOCKET_PATH:
                raise StartError(f"the socket's file name is too long: {path}", "give --socket a shorter one")
            _remove_stale(path, name)
            # The mode of the descriptor before bind is the mode of the file: at no moment can anybody else connect.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(name)
            if group is not None:
                let_in(path, group)
            listener.listen(1024)
        finally:
            os.close(directory)
    except OSError as error:
        listener.close()
        raise StartError(
            f"can't listen on {path}: {error.strerror or error}", "give --socket a path in a directory of yours"
        ) from None
    except StartError:
        listener.close()
        raise
    return listener


def let_in(path: Path, group: int | None) -> None:
    """Have the socket's file let in the members of `group`; None: the user alone."""
    if group is None:
        path.chmod(0o600)
        return
    os.chown(path, -1, group)
    path.chmod(0o660)


def _check_way(directory: Path) -> None:
    """Whoever could replace a part of the way could put a socket of his own there, and be told what people enqueue."""
    users = trust.trusted(os.geteuid(), uid_map=Path("/proc/self/uid_map").read_text())
    found = trust.replaceable(str(directory.absolute()), users, os.getegid(), os.lstat, os.readlink)
    if found is None:
        return
    status = os.lstat(found)
    why = "belongs to another user" if status.st_uid not in users else "can be written to by other users"
    raise StartError(f"can't listen in {directory}: {found} {why}", "give --socket a path that nobody else can change")


def _remove_stale(path: Path, name: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"{path} is there, and is not a socket", "remove it, or give --socket another path")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        probe.setblocking(False)  # one whose queue is full would keep us waiting
        probe.connect(name)
    except BlockingIOError:
        raise StartError(f"another daemon listens on {path}", "give --socket another path") from None
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    else:
        raise StartError(f"another daemon listens on {path}", "give --socket another path")
    finally:
        probe.close()


def remove_socket(path: Path, identity: tuple[int, int] | None) -> None:
    """Remove the socket's file if it is still that of `identity` (device, inode): the next daemon may have its own."""
    if identity is not None and file_identity(path) == identity:
        path.unlink(missing_ok=True)
