"""One connected socket: requests out, replies in."""

from __future__ import annotations

# What the socket module adds is not needed here, and importing it takes half as long as the interpreter's own start.
import _socket as socket
import os
import select
import struct

from queuectl_client.errors import BadRequest, NoDaemon
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.lines import MAX_LINE, Lines
from queuectl_protocol.paths import MAX_SOCKET_PATH

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import Any, Protocol

    Hello = tuple[int, str, int, str, int]
    """What is read of `server.info` before it is known that both sides speak the same version: protocol, version, PID,
    start and generation of the daemon.
    """

    class Refusal(Protocol):
        """The `error` of a reply."""

        @property
        def message(self) -> str: ...

        @property
        def data(self) -> Any:
            """With `kind` and `hint`."""

    class Reply(Protocol):
        """A reply, as far as it is looked at here."""

        @property
        def id(self) -> object: ...

        @property
        def result(self) -> Any: ...

        @property
        def error(self) -> Refusal | None: ...

    class Codec(Protocol):
        """How requests and replies become lines and values: `typed` or `plain`."""

        def encode_request(self, method: str, params: Any, request_id: int) -> bytes: ...

        def decode_reply(self, line: bytes) -> Reply: ...

        def read_hello(self, reply: Reply) -> Hello: ...


MAX_REPLY = 256 * 1024 * 1024
"""Bytes. Replies are bounded by the daemon; this only keeps another program's endless line from filling the memory."""


LONGEST_WAIT = 2_000_000.0
"""Seconds of a timeout, at most: 23 days. A longer one is as good as that."""

SIGNAL_LOOK = 1.0
"""Seconds after which a Ctrl-C is heeded at the latest."""


class ConnectionLost(Exception):  # noqa: N818 - named after what happened
    """The other side closed the connection, or is gone."""


class Connection:
    """A blocking connection to a daemon. Not safe for use by several threads."""

    def __init__(self, path: str, codec: Codec, *, timeout: float | None = None) -> None:
        """Connect.

        Args:
            codec: makes lines of requests, and replies of lines.
            path: of the socket; it may be longer than a socket address can be.
            timeout: seconds that connecting, and each wait for a reply, may take; None is no limit.

        Raises:
            OSError: nobody listens there, or it is not allowed.
            BadRequest: it can't be the path of a socket.
        """
        self._socket = _connect(path, _possible(timeout))
        self._codec = codec
        self._lines = Lines(MAX_REPLY)
        self._replies: list[Reply] = []
        self._last_id = 0
        self.timeout = timeout

    @property
    def timeout(self) -> float | None:
        """Seconds that a wait for a reply may take; None is no limit."""
        return self._socket.gettimeout()

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._socket.settimeout(_possible(seconds))

    def close(self) -> None:
        self._socket.close()

    def peer_uid(self) -> int:
        """The user who opened the socket at the other end for listening."""
        found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        uid: int = struct.unpack("iII", found)[1]
        return uid

    def is_open(self) -> bool:
        """False if the other side has closed it: then nothing that is sent now can be carried out."""
        # A socket with a timeout waits for something to read, whatever the flags of recv() are: it is asked for first.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(0):
            return True
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except OSError:
            return False

    def send(self, method: str, params: Any) -> int:
        """Send one request; any number may be sent before their replies are read.

        Returns:
            The request's id, which its reply will carry.

        Raises:
            ConnectionLost: it is unknown whether the daemon got it.
            BadRequest: it is longer than the daemon would read.
        """
        self._last_id += 1
        try:
            line = self._codec.encode_request(method, params, self._last_id)
        except UnicodeEncodeError:
            raise BadRequest("there is text in it that is not Unicode, and so can't be sent") from None
        if len(line) - 1 > MAX_LINE:
            raise BadRequest(
                f"the request is {len(line) - 1:,} bytes long, and the limit is {MAX_LINE:,}",
                "enqueue fewer jobs at once (`--file` does), or leave the environment out with `--clean-env`",
            )
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise NoDaemon("the daemon does not read what it is sent") from None
        except OSError:
            raise ConnectionLost from None
        return self._last_id

    def receive(self) -> Reply:
        """The next reply, whatever request it belongs to.

        Raises:
            ConnectionLost: before there was one.
            NoDaemon: after `timeout` seconds.
            ProtocolError: it is none, or it is an error that belongs to no request (the connection was refused).
        """
        while not self._replies:
            if self._socket.gettimeout() is None:
                self._wait()
            try:
                data = self._socket.recv(256 * 1024)
            except TimeoutError:
                raise NoDaemon("the daemon does not answer", "it may be stopped or overloaded; see its log") from None
            except OSError:
                raise ConnectionLost from None
            if not data:
                raise ConnectionLost
            for line in self._lines.feed(data):
                if line is None:
                    raise ProtocolError("too_large", f"the daemon sent a line of over {MAX_REPLY:,} bytes")
                self._replies.append(self._codec.decode_reply(line))
        reply = self._replies.pop(0)
        if reply.id is None and reply.error is not None:
            raise ProtocolError(reply.error.data.kind, reply.error.message, reply.error.data.hint)
        return reply

    def _wait(self) -> None:
        """Until there is something to read, for ever.

        A Ctrl-C that comes just before a system call blocks is heeded by Python only after the call: no single wait may
        last until the daemon has something to say.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(SIGNAL_LOOK * 1000):
            pass


def _possible(timeout: float | None) -> float | None:
    """poll(2) waits for 24.8 days at most, and setsockopt(2) takes no infinity."""
    return None if timeout is None else min(timeout, LONGEST_WAIT)


def _connect(path: str, timeout: float | None) -> socket.socket:
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise BadRequest(f"{path!r} can't be the path of a socket")
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout is not None:
            # Not settimeout(): on a non-blocking socket a full backlog is EAGAIN at once, not a wait.
            seconds = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        if len(raw) <= MAX_SOCKET_PATH:
            connected.connect(raw)
        else:
            _connect_far(connected, path)
    except BaseException:
        connected.close()
        raise
    return connected


def _connect_far(connecting: socket.socket, path: str) -> None:
    """Connect to a path that is too long for a socket address, through a descriptor of its directory."""
    parent, name = os.path.split(path)
    directory = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        near = f"/proc/self/fd/{directory}/".encode() + os.fsencode(name)
        if len(near) > MAX_SOCKET_PATH:
            raise BadRequest(
                f"the socket's name {name[:40]!r}... is too long: {len(os.fsencode(name))} bytes",
                "choose a shorter name; the directory may be as deep as it likes",
            )
        connecting.connect(near)
    finally:
        os.close(directory)
