"""What one daemon holds and no other one can hold at the same time: its state directory, and its socket.

A daemon claims both when it starts. A program that was executed in the place of a daemon takes them over from it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from queuectl_protocol import paths
from queuectld import failpoints
from queuectld.host import directory, socket_file
from queuectld.host.diskspace import DiskSpace
from queuectld.host.handover import Handover
from queuectld.host.listening import Listening, own_name
from queuectld.host.names import NO_FILE, file_identity
from queuectld.host.start_error import StartError

log = logging.getLogger("queuectld")


@dataclass(frozen=True, slots=True)
class Directory:
    """A state directory that is held.

    Attributes:
        path: where it is.
        lock: the descriptor of its lock's file, locked.
        descriptor: of the directory itself, locked; -1 on a file system that locks files only.
    """

    path: Path
    lock: int
    descriptor: int

    def fault(self) -> str:
        """Why a program that is executed in this one's place could not take it over; "" if it can."""
        try:
            directory.directory_of(self.lock, self.path)
        except StartError as error:
            return str(error)
        return ""


def claim_directory(path: Path) -> Directory:
    """Make the state directory where it is missing, become its only daemon, and have it ready for the store.

    Raises:
        StartError: another daemon has it, or it can't be used. Nothing was changed for a daemon that runs already.
    """
    directory.prepare_state_dir(path)
    lock, descriptor = directory.lock_state_dir(path)
    failpoints.hit("start.locked")
    directory.remove_trials(path)
    DiskSpace(path).make_startable()
    return Directory(path, lock, descriptor)


def take_over_directory(inherited: Handover, asked: Path) -> Directory:
    """Go on with the state directory of the program before this one, whatever is asked for now.

    Raises:
        StartError: it is gone.
    """
    lock, descriptor = inherited.lock, inherited.directory
    path = directory.directory_of(lock, asked)
    if path != asked:
        log.error("the state directory can't be changed by a reload, only by a restart: still %s", path)
    with contextlib.suppress(OSError):  # what is in the way is no reason to let running jobs down
        directory.make_directories(path)
    if descriptor < 0:  # the program before this one did not hold it
        with contextlib.suppress(StartError):  # who starts another daemon now holds it until he sees the other lock
            descriptor = directory.lock_directory(path)
    if file_identity(path / directory.LOCK) is None:  # somebody has removed it
        with contextlib.suppress(StartError):  # no room for it: it is the directory that counts
            lock = directory.lock_file(path)
    return Directory(path, lock, descriptor)


def claim_socket(
    state_dir: Path, asked: Path | None, passed: Sequence[int], group: int | None, environ: Mapping[str, str]
) -> Listening:
    """Listen where clients look. To be called after the state directory is held.

    Only the one daemon of a state directory may remove the file of a socket that nobody listens on.

    Args:
        state_dir: which is held.
        asked: where a person wants it; None: where systemd listens, or else where it belongs by itself.
        passed: descriptors of systemd's sockets. They are closed where they are not used.
        group: who else may connect.
        environ: by which the place is found.

    Raises:
        StartError: somebody listens there, or it can't be made.
    """
    if passed and asked is None:
        return _of_systemd(state_dir, socket.socket(fileno=passed[0]), group)
    for descriptor in passed:
        os.close(descriptor)
    home = asked or Path(paths.daemon_socket(environ)).absolute()
    listener = socket_file.listen(home, group)
    identity = file_identity(home) or NO_FILE  # somebody may have removed it in this moment; it will be made again
    failpoints.hit("start.bound")
    return Listening(state_dir, home, home, listener, identity, group)


def take_over_socket(
    state_dir: Path, inherited: Handover, asked: Path | None, group: int | None, environ: Mapping[str, str]
) -> Listening:
    """Go on with the socket of the program before this one, whatever is asked for now; but for its group."""
    listener, identity = socket.socket(fileno=inherited.listener), inherited.socket_identity
    if identity is None:
        listening = _of_systemd(state_dir, listener, group)
    else:
        address = Path(inherited.address) if inherited.address else own_name(listener)
        address = address or asked or Path(paths.daemon_socket(environ)).absolute()
        home = Path(inherited.home) if inherited.home else address
        if address == home and file_identity(home) == identity:
            with contextlib.suppress(OSError):  # the file has gone in this moment, and will be made again
                socket_file.let_in(home, group)
        listening = Listening(state_dir, home, address, listener, identity, group)
    if asked is not None and listening.home != asked:
        log.error("the socket can't be changed by a reload, only by a restart: still %s", listening.home)
    return listening


def _of_systemd(state_dir: Path, listener: socket.socket, group: int | None) -> Listening:
    """The file is systemd's, and so is the decision whom it lets in: SocketGroup=, SocketMode=."""
    home = Path(os.fsdecode(listener.getsockname() or b""))
    return Listening(state_dir, home, home, listener, None, socket_file.group_of(listener) if group is None else group)
