"""The Unix server: who may connect, how much one peer may ask for at once, lines in, replies out.

One reader a connection. Requests run side by side, replies go out as they are ready. Nothing that a peer sends or fails
to read costs more than a bounded amount of memory, and nothing it does disturbs the others.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct

from queuectl_protocol import framing
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.messages import METHODS
from queuectld.host.handover import Passed
from queuectld.wire.budget import LARGE, MOST_LARGE, MOST_SMALL, REQUEST_COST, Budget, weight
from queuectld.wire.hangups import Hangups
from queuectld.wire.steps import Steps

log = logging.getLogger("queuectld.wire.server")

MAX_PENDING = 64
"""Requests of one connection that are worked on at once; further ones wait in the socket."""

MAX_UNREAD = 4 * 1024 * 1024
"""Bytes of replies that wait for one peer to read them; it is not listened to meanwhile."""

ABORT_UNREAD = 64 * 1024 * 1024
"""Bytes of unread replies at which the connection is dropped: only a worker could be sent so much unasked."""

MAX_HELD = 64 * 1024 * 1024
"""Bytes that all peers together may have this process keep: half lines, requests, unread replies. Each of them may have
a part of that, but thousands at their own limits would be gigabytes: who holds most is sent away then.
"""

ACCEPT_AT_ONCE = 100
"""Connections taken in before others are served again."""

QUIESCE_LOOK = 0.05
"""Seconds between two looks whether all answers have been read, while everything else has come to rest."""

READ_PATIENCE = 0.5
"""Seconds without a byte read after which a peer no longer holds up a re-execution or the end: its answers are lost."""

ACCEPT_PAUSE = 0.2
"""Seconds without taking in connections after the kernel had no room for one."""

BULKY = frozenset({"job.get", "job.list", "dlq.list", "worker.list", "status.get"})
"""Methods whose answers may be a mebibyte and more: made one at a time for one peer, and only while it reads."""

BULKY_AT_ONCE = 2
"""Answers of these that are made at once, for all peers together; few of them are read at once anyway."""

LONG_WAITS = frozenset({"job.wait", "job.logs"})
"""Methods that may wait for long: given up when the peer leaves, repeated by a successor after a re-execution.

Those and no others are tasks."""

WAITING_FOR_OTHERS = LONG_WAITS | BULKY | {"server.backup"}
"""Methods that can wait for what is not in this daemon's hands: a job, a peer that does not read, another disk. They
count as what their peer holds. In the budget they would keep others out for as long.
"""

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


Handler = Callable[[Any, "Connection", Any], Awaitable[Struct | None]]


class Server:
    """All connections.

    Args:
        context: handed to each handler as it is.
        handlers: method -> coroutine function (context, connection, params) -> result.
        access: who may connect.
        max_connections: of clients; further ones are told `busy` and closed.
        detached: called when a connection has ended.
        is_worker: by its PID; a worker needs no room that clients have, or its job would be taken for lost.
        max_workers: connections of workers; further ones are told `busy` and closed: they try again.
        turned_away: called with the PID of such a worker.
    """

    def __init__(
        self,
        context: object,
        handlers: dict[str, Handler],
        access: Access,
        max_connections: int,
        detached: Callable[[Connection], None],
        is_worker: Callable[[int], bool],
        max_workers: int = sys.maxsize,
        turned_away: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        self.context = context
        self.handlers = handlers
        self.access = access
        self.max_connections = max_connections
        self.detached = detached
        self.is_worker = is_worker
        self.max_workers = max_workers
        self.turned_away = turned_away
        self.connections: set[Connection] = set()
        self.loop = asyncio.get_running_loop()
        self._held = 0
        self._workers = 0
        self.idle = asyncio.Event()
        self.bulky = asyncio.Semaphore(BULKY_AT_ONCE)
        self.hangups = Hangups()
        self.small, self.large = Budget(MOST_SMALL), Budget(MOST_LARGE)
        self._listener: socket.socket | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept on a socket that listens already. It stays the caller's."""
        listener.setblocking(False)
        self._listener = listener
        self.loop.add_reader(listener, self._accept)

    def listen_instead(self, listener: socket.socket) -> None:
        """Go on with another socket. The one before stays the caller's; who waits there is taken in."""
        if self._listener is not None:
            self._accept()
            self.loop.remove_reader(self._listener)
            self.listen(listener)

    def _accept(self) -> None:
        """Take in connections that wait, some at a time: however many wait, those that are in are served meanwhile."""
        assert self._listener is not None  # noqa: S101 - only called while it listens
        for _ in range(ACCEPT_AT_ONCE):
            try:
                peer, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor or memory left: who waits goes on waiting in the kernel, and this loop must not spin.
                log.error("can't accept connections for a moment: %s", error)  # noqa: TRY400 - it says all
                self.loop.remove_reader(self._listener)
                self.loop.call_later(ACCEPT_PAUSE, self._accept_again)
                return
            task = asyncio.ensure_future(self.adopt(peer, b""))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self.loop.add_reader(self._listener, self._accept)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            self.loop.remove_reader(self._listener)
            self._listener = None

    async def adopt(self, peer: socket.socket, waiting: bytes, *, too_long: bool = False) -> None:
        """Serve a connection, new or from before a re-execution: see `handover.Passed`."""
        peer.setblocking(False)
        await self.loop.connect_accepted_socket(lambda: Connection(self, waiting, too_long=too_long), peer)

    def let_in(self, connection: Connection) -> bool:
        """Whether there is room for one more, which is one of `connections` then.

        Workers and clients do not take each other's room: each of them has descriptors left.
        """
        if connection.is_worker:
            if self._workers >= self.max_workers:
                self.turned_away(connection.pid)
                return False
            self._workers += 1
        elif len(self.connections) - self._workers >= self.max_connections:
            return False
        self.connections.add(connection)
        return True

    def account(self, connection: Connection) -> None:
        """What a connection holds has changed."""
        if connection in self.connections:
            held = connection.held
            self._held += held - connection.counted
            connection.counted = held
            if self._held > MAX_HELD:
                self._make_room()

    def leave(self, connection: Connection) -> None:
        """A connection is none any more, or will soon be none."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._workers -= connection.is_worker
            self._held -= connection.counted
            connection.counted = 0

    def _make_room(self) -> None:
        """Send away who holds most, until there is some room again. Workers hold little, and stay."""
        for connection in self.connections:
            connection.counted = connection.held  # nobody tells when a peer reads
        self._held = sum(connection.counted for connection in self.connections)
        if self._held <= MAX_HELD:
            return
        clients = [connection for connection in self.connections if connection.worker is None]
        for connection in sorted(clients, key=lambda client: client.counted, reverse=True):
            if self._held <= MAX_HELD * 7 // 8:
                break
            self.leave(connection)
            connection.send_away()

    async def quiesce(self, seconds: float, *, answer_waits: bool = False) -> None:
        """Take in nobody, stop reading, answer what was asked; what waits for something to happen only if told to."""
        self._stop_accepting()
        if self._arriving:
            await asyncio.wait(self._arriving)
        for connection in self.connections:
            connection.stop_reading()
        deadline = self.loop.time() + seconds
        while self._are_awaited(answer_waits=answer_waits):
            left = deadline - self.loop.time()
            if left <= 0:
                break
            self.idle.clear()
            try:
                # Nothing tells when a peer has read its last answer.
                async with asyncio.timeout(min(left, QUIESCE_LOOK)):
                    await self.idle.wait()
            except TimeoutError:
                continue

    def _are_awaited(self, *, answer_waits: bool) -> bool:
        now = self.loop.time()
        # All are looked at, each time: the patience with one must not begin when that with another is over.
        reading = [connection for connection in self.connections if not connection.is_stuck(now)]
        return any(connection.is_working or (answer_waits and connection.is_asked) for connection in reading)

    def close(self) -> None:
        """Take in nobody and drop every connection, what was written to them going out first."""
        self._stop_accepting()
        self.hangups.close()
        for connection in list(self.connections):
            connection.close()


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


class Connection(asyncio.Protocol):
    """One peer: a client or a worker."""

    def __init__(self, server: Server, waiting: bytes = b"", *, too_long: bool = False) -> None:
        self.pid = 0
        self.uid = -1
        self.is_worker = False
        self.worker: str | None = None
        """The id of the worker that has attached on this connection."""
        self.counted = 0
        """Bytes held, when they were last counted."""
        self._server = server
        self._waiting = waiting
        self._too_long = too_long
        self._lines = framing.Lines()
        self._backlog: deque[bytes | None] = deque()
        self._backlog_size = 0
        self._asked_size = 0
        self._working: dict[Steps | asyncio.Task[None], _Asked] = {}
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._unread = False
        self._written = 0
        self._taken = (-1, 0.0)
        """Bytes that the kernel had taken, and since when it had taken no more, as far as that was looked at."""
        self._bulk = asyncio.Lock()
        self._reads = asyncio.Event()
        self._reads.set()
        self._stopped = False
        self._said_all = False
        self._starved = False
        """The next request waits for room in the budget."""

    # --- called by asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio promises for stream sockets
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        try:
            peer = credentials(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()  # nobody is served of whom it is not known who they are
            return
        self.pid, self.uid = peer.pid, peer.uid
        self.is_worker = self._server.is_worker(peer.pid)
        refusal = None
        if not self._server.access.allows(peer):
            log.warning("refused a connection", extra={"uid": peer.uid, "pid": peer.pid})
            refusal = ProtocolError("forbidden", "this user may not use this daemon", "ask whoever runs it")
        elif not self._server.let_in(self):
            refusal = ProtocolError("busy", "too many connections", "try again, or close some")
        if refusal is not None:
            transport.write(framing.encode_error(None, refusal))
            transport.close()
            return
        transport.set_write_buffer_limits(high=MAX_UNREAD)
        if self._waiting:
            self.data_received(self._waiting)
        if self._too_long:
            self._lines.drop_line()

    def data_received(self, data: bytes) -> None:
        if self in self._server.connections:  # not refused
            lines = self._lines.feed(data)
            self._backlog += lines
            self._backlog_size += sum(len(line) for line in lines if line is not None)
            self._work()
            self._server.account(self)

    def eof_received(self) -> bool:
        # A peer that has said all it wants (`socat` at the end of its input) still gets its answers.
        self._said_all = True
        self._close_when_answered()
        self._watch_hangup()
        return True

    def _watch_hangup(self) -> None:
        """Notice it if the peer goes, now that nothing is read from it."""
        if self._transport is not None and not self._transport.is_closing():
            self._server.hangups.watch(self._descriptor, self._transport.abort)

    def _close_when_answered(self) -> None:
        if self._said_all and not self._working and not self._backlog and self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        # It does not read: it is not listened to either, so its unread replies stay bounded.
        self._unread = True
        self._reads.clear()
        self._regulate()

    def resume_writing(self) -> None:
        self._unread = False
        self._reads.set()
        self._work()

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.hangups.forget(self._descriptor)
        self._transport = None
        self._drop_backlog()
        # What refers to this connection may do so for a while, so that it must not keep what was read.
        self._lines = framing.Lines()
        self._server.small.forget(self)
        self._server.large.forget(self)
        self._server.leave(self)
        for work in list(self._working):
            if isinstance(work, asyncio.Task):
                work.cancel()
        self._reads.set()
        self._server.detached(self)
        self._server.idle.set()

    # --- requests -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Begin what may be begun, and say whether more may be read."""
        # Called after each request that ends: what it costs must not depend on how many wait.
        self._starved = False
        while self._backlog and len(self._working) < MAX_PENDING and not self._unread and self._transport:
            line = self._backlog.popleft()
            if not self._on_line(line):
                self._backlog.appendleft(line)
                self._starved = True
                break
            self._backlog_size -= len(line or b"")
        self._regulate()
        self._close_when_answered()

    def _drop_backlog(self) -> None:
        self._starved = False
        self._backlog.clear()
        self._backlog_size = 0

    def _regulate(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._said_all:
            return
        if self._stopped or self._unread or self._backlog or len(self._working) >= MAX_PENDING:
            self._transport.pause_reading()
            if self._starved or len(self._working) >= MAX_PENDING:
                self._watch_hangup()  # these may wait for long
        else:
            self._server.hangups.forget(self._descriptor)
            self._transport.resume_reading()

    def room_again(self) -> None:
        """There may be room for the next request."""
        if self._transport is not None:
            self._work()

    def _on_line(self, line: bytes | None) -> bool:
        """Begin with a request; False where there is no room for it now, and nothing was done."""
        if line is None:
            self._refuse(None, ProtocolError("too_large", f"a line may have {framing.MAX_LINE} bytes"))
            return True
        if not line.strip():
            return True  # a blank line is nobody's request; people who type at a socket press Enter
        size = weight(line)
        budget = self._server.small if size < LARGE else self._server.large
        if self.worker is None and not budget.take(size, self):
            return False
        asked = _Asked("", line, size, None if self.worker is not None else budget)
        try:
            request = framing.decode_request(line)
        except ProtocolError as error:
            asked.give_back()
            self._refuse(None, error)
            return True
        asked.method = request.method
        work: Steps | asyncio.Task[None]
        if request.method in LONG_WAITS:
            work = self._server.loop.create_task(self._serve(request))
            work.add_done_callback(self._served)
        else:
            serve = self._serve_bulky if request.method in BULKY else self._serve
            work = Steps(serve(request), self._served)
            if work.advance():
                asked.give_back()
                return True
        if request.method in WAITING_FOR_OTHERS:
            asked.give_back()
        self._working[work] = asked
        self._asked_size += asked.held
        return True

    def _served(self, work: Steps | asyncio.Task[None]) -> None:
        asked = self._working.pop(work)
        self._asked_size -= asked.held
        asked.give_back()
        self._server.account(self)
        if self._backlog or len(self._working) == MAX_PENDING - 1:
            self._work()
        if not self._working:
            self._server.idle.set()
            self._close_when_answered()

    async def _serve_bulky(self, request: framing.Request) -> None:
        async with self._bulk:
            await self._reads.wait()
            if self._transport is None:
                return  # without a turn among all peers: who asks, goes and comes again would leave ever more behind
            # A peer may ask, go, and come again to ask: what is made for all of them, the gone ones too, is bounded.
            async with self._server.bulky:
                if self._transport is not None:
                    await self._serve(request)

    async def _serve(self, request: framing.Request) -> None:
        wants_answer = request.id is not UNSET
        try:
            result = await self._call(request)
            answer = framing.encode_result(request.id, result if result is not None else {}) if wants_answer else b""
        except ProtocolError as error:
            if wants_answer:
                self._refuse(request.id, error)
        except Exception as error:  # noqa: BLE001 - it is logged
            refusal = _fault(error, request.method)
            if wants_answer:
                self._refuse(request.id, refusal)
        else:
            if wants_answer:
                self.write(answer)

    async def _call(self, request: framing.Request) -> Struct | None:
        method = METHODS.get(request.method)
        if method is None:
            raise ProtocolError("method_not_found", f"there is no method {request.method[:64]!r}")
        if method.workers_only and self.worker is None and request.method != "worker.attach":
            raise ProtocolError("forbidden", f"{request.method} is for the daemon's own workers")
        handler = self._server.handlers[request.method]
        # Not kept here: a handler that waits for long lets go of what it was asked with.
        return await handler(self._server.context, self, framing.decode_as(method.params, request.params))

    def _refuse(self, request_id: object, error: ProtocolError) -> None:
        self.write(framing.encode_error(request_id, error))

    # --- what others need ---------------------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(line)
        self._written += len(line)
        unread = self._transport.get_write_buffer_size()
        if unread > ABORT_UNREAD:
            log.warning("dropped a connection that does not read", extra={"pid": self.pid})
            self._transport.abort()
        if unread:
            self._server.account(self)

    def send_away(self) -> None:
        """Close it, to have the memory that it holds for others."""
        if self._transport is None or self._transport.is_closing():
            return
        log.warning("dropped a connection that holds too much", extra={"pid": self.pid, "bytes": self.held})
        self._lines = framing.Lines()
        self._drop_backlog()
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # it does not read, so it could not be told
            return
        refusal = ProtocolError("busy", "too much is being sent to this daemon at once", "try again in a moment")
        self._transport.write(framing.encode_error(None, refusal))
        self._transport.close()

    @property
    def held(self) -> int:
        """Bytes that this peer has the daemon keep."""
        unread = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._lines.size + self._backlog_size + self._asked_size + unread

    def notify(self, method: str, params: Struct) -> None:
        """Tell a worker something."""
        self.write(framing.encode_request(method, params))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def stop_reading(self) -> None:
        self._stopped = True
        self._regulate()

    @property
    def is_working(self) -> bool:
        """Whether an answer is due that waits for nothing to happen, or not all answers are with the kernel."""
        return self._starved or self._is_answering

    @property
    def _is_answering(self) -> bool:
        """As `is_working`, of the requests that were begun with."""
        if self._transport is None:
            return False
        busy = any(asked.method not in LONG_WAITS for asked in self._working.values())
        return busy or self._transport.get_write_buffer_size() > 0

    def is_stuck(self, now: float) -> bool:
        """Whether answers wait for the peer to read, and it has read nothing for READ_PATIENCE, as far as was looked.

        Args:
            now: seconds of the loop's clock.
        """
        unread = self._transport.get_write_buffer_size() if self._transport is not None else 0
        taken, since = self._taken
        if not unread or self._written - unread != taken:
            self._taken = (self._written - unread, now)
            return False
        return now - since >= READ_PATIENCE

    @property
    def is_asked(self) -> bool:
        """Whether any answer is due."""
        return bool(self._working)

    def hand_over(self) -> Passed | None:
        """The descriptor, and what a successor has to read first: requests not answered, then what was read of others.

        None for a worker (it attaches again) and for a peer that has not read its answers. No answer comes after it.
        """
        for work in self._working:
            if isinstance(work, asyncio.Task):
                work.cancel()  # what it waits for may happen before the exec: its answer is the successor's to give
        for line in self._backlog:
            if line is None:
                self._on_line(line)  # the refusal of one that was too long: of the line itself nothing is left
        if self._transport is None or self.worker is not None or self._transport.is_closing() or self._is_answering:
            return None
        # A task that has just answered is taken off the list only later: asked again, it would be answered twice.
        lines = [
            asked.line for work, asked in self._working.items() if not (isinstance(work, asyncio.Task) and work.done())
        ]
        lines += [line for line in self._backlog if line is not None]
        self._drop_backlog()
        waiting = b"".join(line + b"\n" for line in lines) + self._lines.rest
        descriptor = self._transport.get_extra_info("socket").fileno()
        return Passed(descriptor, waiting, self._lines.drops)


class _Asked:
    """A request that is worked on.

    Attributes:
        method: what was asked for.
        line: as it came.
        held: bytes that its peer has the daemon keep for it.
    """

    __slots__ = ("_budget", "_size", "line", "method")

    def __init__(self, method: str, line: bytes, size: int, budget: Budget | None) -> None:
        self.method = method
        self.line = line
        self._size = size
        self._budget = budget

    def give_back(self) -> None:
        """What it takes is not the budget's any more."""
        if self._budget is not None:
            self._budget.give_back(self._size)
            self._budget = None

    @property
    def held(self) -> int:
        return self._size if self.method in WAITING_FOR_OTHERS else len(self.line) + REQUEST_COST


_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


def _fault(error: Exception, method: str) -> ProtocolError:
    """What the peer is told of an error that nobody has foreseen, or that is nobody's fault."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_DESCRIPTORS:
        log.error("no descriptor left for a request", extra={"method": method})
        return ProtocolError("busy", "the daemon has no open file left", "try again, or raise its limit of open files")
    log.error("a request failed", extra={"method": method}, exc_info=error)
    return ProtocolError("internal_error", "the daemon has a fault; see its log")


def check_handlers(handlers: Collection[str]) -> None:
    """
    Raises:
        AssertionError: a method has no handler, or a handler no method.
    """
    missing = set(METHODS) ^ set(handlers)
    assert not missing, f"methods and handlers differ: {sorted(missing)}"  # noqa: S101
