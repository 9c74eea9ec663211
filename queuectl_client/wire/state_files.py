"""What a daemon's state directory says of it: where it listens, and which process it is. Read only, never locked."""

from __future__ import annotations

import errno
import os
import stat

from queuectl_protocol import paths

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Mapping

LOCK_FILE = "daemon.lock"
"""Held open by the daemon for all its life; its PID is in it."""


def address_of(state_dir: str) -> str | None:
    """Where the daemon of `state_dir` listens, as it wrote it there; None if it wrote nothing that can be read."""
    return paths.parse_address(_content(f"{state_dir}/{paths.ADDRESS_FILE}"))


def named_state_dir(environ: Mapping[str, str]) -> str | None:
    """The state directory that the environment names; None if it names none."""
    return paths.state_dir(environ) if environ.get("QUEUECTL_STATE_DIR") else None


def somebody_listens(address: str) -> bool:
    import socket  # noqa: PLC0415 - only where no daemon answers

    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except OSError as error:
            return error.errno == errno.EAGAIN  # more wait there already than it takes in
    return True


def running_daemon(state_dir: str) -> tuple[int, int] | None:
    """PID and a descriptor of the process that runs as the daemon of `state_dir`; None if none does.

    It need not answer. The caller closes the descriptor.
    """
    lock = f"{state_dir}/{LOCK_FILE}"
    text = _content(lock).strip()
    if not text.isdigit() or int(text) <= 1:
        return None
    pid = int(text)
    try:
        process = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return None
    # Looked at after the descriptor was taken, so it is this process whose files are seen.
    if _has_open(pid, lock):
        return pid, process
    os.close(process)
    return None


def wait_for_end(process: int) -> None:
    """Wait until the process of a descriptor has ended: the descriptor is readable then."""
    import select  # noqa: PLC0415 - only here

    watch = select.poll()
    watch.register(process, select.POLLIN)
    watch.poll()


def _has_open(pid: int, path: str) -> bool:
    try:
        wanted = os.stat(path)
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            try:
                found = descriptor.stat()
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:
        return False
    return False


def _content(path: str) -> bytes:
    """The beginning of a file; nothing where something else is in its place, since a job can write there too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 8192) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)
