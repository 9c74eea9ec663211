"""The socket that the daemon listens on, kept reachable while the daemon lives.

The socket's file can go: a logout removes /run/user/UID, somebody tidies up /tmp. Or another one comes into its place.
The daemon then binds the socket again; where it can't, it listens in its state directory until it can. Workers and
clients read the address that is valid now from a file in the state directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from queuectld.attempt_files import address as address_file
from queuectld.host import names, socket_file
from queuectld.host.looks import next_look
from queuectld.host.start_error import StartError

log = logging.getLogger("queuectld.listening")

SPARE = "daemon.sock"
"""In the state directory, where the daemon listens while it can't listen where it was asked to."""


class Listening:
    """One listening socket and its file.

    Args:
        state_dir: where the address is written, and where the spare socket is.
        home: where the daemon was asked to listen.
        address: where `listener` listens: at `home`, or at the spare socket.
        listener: the socket.
        identity: device and inode of its file; None for systemd's socket, which is left alone.
        group: who else may connect.
    """

    def __init__(
        self,
        state_dir: Path,
        home: Path,
        address: Path,
        listener: socket.socket,
        identity: tuple[int, int] | None,
        group: int | None,
    ) -> None:
        self.home = home
        self.address = address
        self.listener = listener
        self.identity = identity
        self._state_dir = state_dir
        self._spare = state_dir / SPARE
        self.group = group
        self._trouble = ""

    def publish(self) -> None:
        """Write the address into the state directory."""
        if self.address != self._spare:
            with contextlib.suppress(OSError):
                self._spare.unlink()  # of a daemon that was killed
        try:
            address_file.write(self._state_dir, self.address)
        except OSError as error:
            log.warning("the address %s can't be written to the state directory: %s", self.address, error.strerror)

    def renew(self) -> bool:
        """Bind again what is gone or replaced; whether `listener` is another one now."""
        if self.identity is None:
            return False
        at_home = self.address == self.home
        intact = names.file_identity(self.address) == self.identity
        if at_home and intact:
            return False
        if not self._state_dir.is_dir():
            self._complain("the state directory is gone")  # made anew below the socket, it would be in the way
            return False
        try:
            listener = socket_file.listen(self.home, self.group)
        except StartError as error:
            self._complain(str(error))
            return not intact and self._listen_at_spare()
        self._move(self.home, listener)
        return True

    def _listen_at_spare(self) -> bool:
        try:
            listener = socket_file.listen(self._spare, None)
        except StartError as error:
            self._complain(str(error))
            return False
        self._move(self._spare, listener)
        return True

    def _move(self, address: Path, listener: socket.socket) -> None:
        socket_file.remove_socket(self.address, self.identity)
        self.address, self.listener = address, listener
        self.identity = names.file_identity(address) or names.NO_FILE
        self._trouble = ""
        log.warning("the socket's file was gone or replaced; listening again", extra={"socket": str(address)})
        self.publish()

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("the socket's file is gone or replaced, and can't be bound again yet: %s", trouble)
        self._trouble = trouble

    async def keep(self, moved: Callable[[socket.socket], None]) -> None:
        """Look after the socket for ever; `moved` gets each new one."""
        while True:
            await next_look()
            before = self.listener
            if self.renew():
                moved(self.listener)
                before.close()

    def close(self) -> None:
        """The daemon ends: nobody is to look for it."""
        self.listener.close()
        address_file.remove(self._state_dir)
        socket_file.remove_socket(self.address, self.identity)


def own_name(listener: socket.socket) -> Path | None:
    """The path that a socket was bound to; None where the kernel knows it by a path of its own, or by none."""
    name = os.fsdecode(listener.getsockname() or b"")
    return Path(name) if name.startswith("/") and not name.startswith("/proc/self/fd/") else None
