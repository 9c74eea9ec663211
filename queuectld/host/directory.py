"""The state directory, and the locks by which one daemon alone has it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path

from queuectld.attempt_files import address, regular_files
from queuectld.host.names import check_name, file_identity, identity_of
from queuectld.host.start_error import StartError

LOCK = "daemon.lock"
"""In the state directory: locked by its daemon, whose PID it holds."""


def prepare_state_dir(path: Path) -> None:
    """Make the state directory, mode 0700, with what belongs into it.

    Raises:
        StartError: it can't be made, is not writable, or belongs to someone else.
    """
    check_name(path, "the state directory", "give --state-dir another one")
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
        _lock(descriptor, path)
    except OSError as error:  # ENOLCK, of a network's file system: nothing could say who owns the directory
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
        _lock(descriptor, path)
    except OSError:
        return -1
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    """Lock what a descriptor stands for; where that fails, the descriptor is closed.

    Raises:
        StartError: another daemon has the state directory `path`.
        OSError: it can't be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _taken(path) from None
    except OSError:
        os.close(descriptor)
        raise


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
        if file_identity(directory / LOCK) == identity_of(os.fstat(lock)):
            return directory
    if file_identity(file.parent / "queue.db") is not None and file_identity(file.parent / LOCK) is None:
        # The lock's file alone was removed.
        return expected if expected.exists() and expected.samefile(file.parent) else file.parent
    raise StartError("the state directory that this daemon serves is gone", "start it again")
