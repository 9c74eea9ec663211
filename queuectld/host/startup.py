"""What a daemon needs before it can serve: its state directory, the lock on it, a listening socket, descriptors."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import resource
import shutil
import socket
import stat
from pathlib import Path

from queuectl_protocol import trust
from queuectl_protocol.paths import MAX_SOCKET_PATH
from queuectld.attempt_files import address, regular_files

LOCK = "daemon.lock"
"""In the state directory: locked by its daemon, whose PID it holds."""


class StartError(Exception):
    """The daemon can't start; the message says why, in one sentence, and `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _check_name(path: Path, what: str, hint: str) -> None:
    """Clients are told where everything is, and JSON can't tell a name that is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise StartError(f"the name of {what} is not UTF-8: {str(path)!r}", hint) from None


def prepare_state_dir(path: Path) -> None:
    """Make the state directory, mode 0700, with what belongs into it.

    Raises:
        StartError: it can't be made, is not writable, or belongs to someone else.
    """
    _check_name(path, "the state directory", "give --state-dir another one")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_state_dir(path)
        path.chmod(0o700)
        make_directories(path)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unusable(path, error) from None


def make_directories(state_dir: Path) -> None:
    """Make those in the state directory that are missing.

    Raises:
        OSError: something else is in the place of one, or the disk is full or failed.
    """
    for name in ("logs", "workers", "exits"):
        (state_dir / name).mkdir(mode=0o700, exist_ok=True)


def check_state_dir(path: Path) -> None:
    """
    Raises:
        StartError: it is no directory of this user's.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StartError(f"the state directory {path} is not a directory")
    if status.st_uid != os.geteuid():
        raise StartError(
            f"the state directory {path} belongs to another user (uid {status.st_uid})",
            "run queuectld as that user, or give --state-dir another directory",
        )


def remove_trials(state_dir: Path) -> None:
    """Remove what checks that were killed have left; the caller holds the state directory's lock."""
    for trial in state_dir.glob(".check-*"):
        shutil.rmtree(trial, ignore_errors=True)


def lock_state_dir(path: Path) -> tuple[int, int]:
    """Become the only daemon of this state directory.

    Returns:
        The descriptors of its lock's file and of the directory itself (or -1), which hold their locks until they are
        closed.

    Raises:
        StartError: another one has it.
    """
    directory = lock_directory(path)
    return lock_file(path), directory


def lock_file(path: Path) -> int:
    """Make and lock the lock's file in the state directory, which this process holds already.

    Raises:
        StartError: an older daemon has it, which does not hold the directory; or it can't be made.
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _taken(path) from None
    except OSError as error:  # ENOLCK, of a network's file system: nothing could say who owns the directory
        os.close(descriptor)
        raise StartError(
            f"the state directory {path} can't be locked: {error.strerror}",
            "give --state-dir one on a local file system",
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise _unusable(path, error) from None
    return descriptor


def lock_directory(path: Path) -> int:
    """Hold the state directory itself too: somebody may tidy up the lock's file.

    Returns:
        The descriptor that holds it; -1 on a file system that locks files only.

    Raises:
        StartError: another daemon has it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _taken(path) from None
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _taken(path: Path) -> StartError:
    try:
        owner = (regular_files.content(path / LOCK, 32) or b"").decode("ascii", "replace").strip()
    except OSError:
        owner = ""
    where = address.read(path)
    listens = f" and listens on {where}" if where else ""
    return StartError(
        f"another queuectld (PID {owner or 'unknown'}) runs on the state directory {path}{listens}",
        "`queuectl daemon stop` ends it; or give --state-dir another directory",
    )


def _unusable(path: Path, error: OSError) -> StartError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StartError(
        f"the state directory {path} can't be used: {error.strerror}",
        "free some disk space" if full else "give --state-dir one that is writable",
    )


def directory_of(lock: int, expected: Path) -> Path:
    """The state directory whose lock a descriptor holds: `expected` if it is that one, else where the lock's file is.

    That file may have been removed; the directory must be there.

    Raises:
        StartError: that directory is gone.
    """
    file = Path(f"/proc/self/fd/{lock}").readlink()
    for directory in (expected, file.parent):
        if file_identity(directory / LOCK) == _identity(os.fstat(lock)):
            return directory
    if file_identity(file.parent / "queue.db") is not None and file_identity(file.parent / LOCK) is None:
        # The lock's file alone was removed.
        return expected if expected.exists() and expected.samefile(file.parent) else file.parent
    raise StartError("the state directory that this daemon serves is gone", "start it again")


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
    _check_name(path, "the socket", "give --socket another path")
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


def file_identity(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(path.lstat())
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit does; the soft limit as it was, which children get back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft


_SPARE = 32
"""Descriptors for the store, the log, sockets to listen on, and what is open for a moment only."""


def connection_limit() -> int:
    """Clients that may be connected; half of the descriptors is left for workers, and for logs that are followed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _SPARE) // 2)


def workers_at_once() -> int:
    """Workers that may be connected, and that may be watched by a pidfd: each half of what clients do not have.

    There may be more of them, of a daemon with a higher limit. They wait for each other then, and not clients for them.
    """
    return max(4, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE) // 4)


def worker_limit() -> int:
    """Workers that a person may ask for: half of those at once, for while they are replaced there are more."""
    return workers_at_once() // 2
