"""Finding the daemon, and finding it again: one connection at a time, made when it is needed."""

from __future__ import annotations

import errno
import os
import stat
import time

from queuectl_client.errors import NoDaemon, OutcomeUnknown, WrongProtocol
from queuectl_client.wire import state_files
from queuectl_client.wire.connection import Connection, ConnectionLost
from queuectl_protocol import paths, trust
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.version import PROTOCOL, __version__

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from queuectl_client.wire.connection import Codec, Hello, Reply

START_HINT = "start one with `queuectl daemon start`, or with `systemctl --user start queuectld` where it is a service"
HELLO_SECONDS = 10.0
"""A daemon that does not answer `server.info` for so long is as good as none."""
PATIENCE = 10.0
"""Seconds for which the commands try to make a lost connection again."""
RETRY_SECONDS = 0.1
"""Between two attempts to connect again."""


class Link:
    """The way to the daemon."""

    def __init__(self, socket: str | None, codec: Codec, *, patience: float, timeout: float | None) -> None:
        """Nothing is opened yet; see `Client` for the arguments, and `Codec` for that one."""
        self._given = None if socket is None else paths.spelled(socket)
        self._codec = codec
        self._patience = patience
        self._timeout = timeout
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._daemon: Hello | None = None  # who answered last
        self._give_up: float | None = None  # monotonic; None: nothing was lost since the last answer
        self.socket: str | None = None
        """What was connected to last."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, method: str, make_params: Callable[[], Any], *, repeatable: bool, patient: bool = False) -> Reply:
        """Send a request and wait for its reply, on another connection where one is lost.

        Args:
            method: a key of `queuectl_protocol.messages.METHODS`.
            make_params: called whenever the request is sent, since a timeout in the parameters shrinks.
            repeatable: as METHODS says: the request may be sent again.
            patient: a daemon that is stopping may be on its way to come back; wait for it as for a lost connection.

        Raises:
            OutcomeUnknown: the connection was lost, and the request must not be sent again.
            NoDaemon, WrongProtocol, ProtocolError, BadRequest: as `Client` says.
        """
        while True:
            try:
                connection = self.open()
                request = connection.send(method, make_params())
                reply = connection.receive()
                while reply.id != request:
                    reply = connection.receive()
            except ConnectionLost:
                if not repeatable:
                    self.close()
                    raise OutcomeUnknown(
                        f"the connection was lost before the answer to {method}: it may have been carried out, or not",
                        "look with `queuectl status` before you ask for it again",
                    ) from None
                self.lost()
            except BaseException:
                # Half a request, or an answer that nobody waits for any more, must not meet the next call.
                self.close()
                raise
            else:
                self.answered()
                if patient and reply.error is not None and reply.error.data.kind == "shutting_down":
                    self.lost()
                    time.sleep(RETRY_SECONDS)
                    continue
                return reply

    def open(self) -> Connection:
        """The connection. Where there is none, a new one; after one was lost, it is tried for `patience` seconds.

        Raises:
            NoDaemon, WrongProtocol, ProtocolError: as `Client` says.
        """
        if self._connection is not None:
            if self._connection.is_open():
                return self._connection
            self.close()
            self._time_is_up()  # it was there just now: be patient
        while True:
            try:
                self._connection = self._connect()
            except NoDaemon:
                if self._give_up is None or time.monotonic() >= self._give_up:
                    raise
            except ConnectionLost:
                # It was there and went: a daemon that restarts, or re-executes itself.
                if self._time_is_up():
                    raise NoDaemon("the daemon closes the connection before it answers", "its log says why") from None
            except ProtocolError as error:
                if error.kind != "busy" or self._time_is_up():
                    raise
            else:
                self._connected_at = time.monotonic()
                return self._connection
            time.sleep(RETRY_SECONDS)

    def lost(self) -> None:
        """The connection was lost while something was waited for.

        Raises:
            NoDaemon: it was lost again and again, for `patience` seconds.
        """
        self.close()
        if self._give_up is not None and time.monotonic() - self._connected_at > self._patience:
            self._give_up = None  # it had come back, for long enough to count
        if self._give_up is None:
            self._time_is_up()
        elif self._time_is_up():
            raise NoDaemon("the daemon closes the connection again and again", "its log says why")
        else:
            time.sleep(RETRY_SECONDS)

    def answered(self) -> None:
        """An answer came: the next loss is the first one."""
        self._give_up = None

    def _time_is_up(self) -> bool:
        """Whether patience is at its end; the first question starts it."""
        now = time.monotonic()
        if self._give_up is None:
            self._give_up = now + self._patience
        return now >= self._give_up

    def _connect(self) -> Connection:
        """Connect to the first candidate that somebody listens on, and see that both sides speak the same version."""
        guessed = self._given is None and not os.environ.get("QUEUECTL_SOCKET")
        tried: list[tuple[str, OSError]] = []
        for path in self._candidates():
            try:
                connection = Connection(path, self._codec, timeout=self._timeout or HELLO_SECONDS)
            except OSError as error:
                tried.append((path, error))
                continue
            try:
                if guessed and path != paths.SYSTEM_SOCKET:
                    _check_owner(path, connection)
                _check_way(path, connection)
                hello = _check_protocol(connection, self._codec)
            except BaseException:
                connection.close()
                raise
            connection.timeout = self._timeout
            self.socket = path
            if hello != self._daemon:
                # It was restarted, or re-executed itself, and is back: the next loss is the first one. One that closes
                # the connection again and again stays the same.
                self._daemon, self._give_up = hello, None
            return connection
        raise _nobody(tried)

    def _candidates(self) -> Iterator[str]:
        if self._given is not None:
            yield self._given
            return
        first, *others = paths.client_sockets(os.environ)
        yield first
        if others:  # nobody named a socket: before the system's daemon comes the user's own, wherever it listens
            written = state_files.address_of(paths.state_dir(os.environ))
            if written is not None and written != first:
                yield written
            yield from others


def time_left(timeout: float | None) -> Callable[[], float | None]:
    """A function that says how much of `timeout`, which begins now, is left; both in seconds, None is no limit."""
    if timeout is None:
        return lambda: None
    deadline = time.monotonic() + timeout
    return lambda: max(0.0, deadline - time.monotonic())


def _check_owner(path: str, connection: Connection) -> None:
    """A path that was guessed may lie where others could have made it (in /tmp), and jobs carry environments."""
    uid = connection.peer_uid()
    if uid not in {0, os.getuid()}:
        raise NoDaemon(
            f"{path} belongs to another user (UID {uid}), so it is not used",
            "if that is meant, name it with `--socket`",
        )


def _check_way(path: str, connection: Connection) -> None:
    """Nobody but the daemon's user, this user and root may have put the socket there: nothing is sent before that.

    The socket of another user's daemon is for its group, never for everybody.
    """
    uid = connection.peer_uid()
    try:
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            users = trust.trusted(uid, os.getuid(), uid_map=uid_map.read())
        directory = os.path.dirname(path if path.startswith("/") else os.path.join(os.getcwd(), path))
        found = trust.replaceable(directory, users, os.getegid(), os.lstat, os.readlink)
        if found is None and uid not in {0, os.getuid()} and os.stat(path).st_mode & stat.S_IWOTH:
            found = path
    except OSError as error:
        raise NoDaemon(f"the way to {path} can't be looked at: {error.strerror}", START_HINT) from None
    if found is not None:
        raise NoDaemon(
            f"{path} is not used: other users can put something else in the place of {found}",
            "have the daemon listen where nobody else can write (--socket)",
        )


def _check_protocol(connection: Connection, codec: Codec) -> Hello:
    """See that the daemon speaks this version of the protocol; which daemon it is."""
    request = connection.send("server.info", {})
    reply = connection.receive()
    if reply.id != request:
        raise ProtocolError("parse_error", "the other side does not speak this protocol: an answer nobody asked for")
    hello = codec.read_hello(reply)
    protocol, version, *_ = hello
    if protocol != PROTOCOL:
        theirs, ours = f"protocol {protocol} (version {version})", f"{PROTOCOL} (version {__version__})"
        older = protocol < PROTOCOL
        raise WrongProtocol(
            f"the daemon speaks {theirs}, this client speaks {ours}",
            "let the daemon change to the installed version with `systemctl reload`, or restart it"
            if older
            else "use the client of the daemon's version",
        )
    return hello


def _who_may(path: str) -> str:
    """What to do where the socket, or its directory, is not open to this user."""
    import grp  # noqa: PLC0415 - only for the error

    name = "GROUP"
    for place in (path, os.path.dirname(path) or "."):
        try:
            name = grp.getgrgid(os.stat(place).st_gid).gr_name
        except (OSError, KeyError):
            continue
        break
    return (
        f"only the daemon's own user, root and the socket's group may: `sudo usermod -aG {name} $USER` makes you a "
        f"member, from your next login on (`sg {name}` starts a shell that has a new group already)"
    )


def _nobody(tried: list[tuple[str, OSError]]) -> NoDaemon:
    """What to say when nobody answers at any candidate."""
    for path, error in tried:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return NoDaemon(f"no permission to connect to {path}", _who_may(path))
        if error.errno == errno.EAGAIN:
            return NoDaemon(f"the daemon at {path} accepts no connections", "it may be stopped or overloaded")
    where = " or ".join(path for path, _ in tried)
    for path, error in tried:
        if error.errno not in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}:
            return NoDaemon(f"can't connect to {path}: {error.strerror}", START_HINT)
    state_dir = paths.state_dir(os.environ)
    written = state_files.address_of(state_dir)
    if written is not None and written not in [path for path, _ in tried] and state_files.somebody_listens(written):
        import shlex  # noqa: PLC0415 - only for the error

        return NoDaemon(
            f"no daemon answers at {where}",
            f"the daemon of {state_dir} listens on {written}: `queuectl --socket {shlex.quote(written)} ...`",
        )
    if written in [path for path, _ in tried] and (running := state_files.running_daemon(state_dir)) is not None:
        pid, process = running
        os.close(process)
        return NoDaemon(
            f"no daemon answers at {where}, though one runs (PID {pid})",
            "a daemon whose socket is gone makes it again within seconds: try again in a moment",
        )
    return NoDaemon(f"no daemon answers at {where}", START_HINT)
