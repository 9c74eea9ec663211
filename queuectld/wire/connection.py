"""One peer: lines in, requests side by side, replies out as they are ready.

Nothing that a peer sends or fails to read costs more than a bounded amount of memory, and nothing it does disturbs the
others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import UNSET, Struct

from queuectl_protocol import framing
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.lines import MAX_LINE, Lines
from queuectl_protocol.messages import METHODS
from queuectld.host.handover import Passed
from queuectld.wire.access import Credentials, credentials
from queuectld.wire.budget import REQUEST_COST, Budget, Room, weight
from queuectld.wire.hangups import Hangups
from queuectld.wire.steps import Steps

log = logging.getLogger("queuectld.server")

MAX_PENDING = 64
"""Requests of one connection that are worked on at once; further ones wait in the socket."""

MAX_UNREAD = 4 * 1024 * 1024
"""Bytes of replies that wait for one peer to read them. Above that, nothing more is read from the peer."""

ABORT_UNREAD = 64 * 1024 * 1024
"""Bytes of unread replies at which the connection is dropped. Only a worker is sent what it did not ask for."""

READ_PATIENCE = 0.5
"""Seconds for which a peer may read nothing before a re-execution, or the end, stops waiting for it. Its answers are
lost then."""

BULKY = frozenset({"job.get", "job.list", "dlq.list", "worker.list", "status.get"})
"""Methods whose answers may have a mebibyte and more. For one peer, one such answer at a time is made, and only while
the peer reads."""

LONG_WAITS = frozenset({"job.wait", "job.logs"})
"""Methods that may wait for long. They are given up when the peer leaves, and asked again by the program after a
re-execution. Only these methods run as tasks."""

WAITING_FOR_OTHERS = LONG_WAITS | BULKY | {"server.backup"}
"""Methods that can wait for something outside of the daemon: a job, a peer that does not read, another disk. They
count as what is kept for their peer. In the room for requests they would keep others out for as long.
"""


Handler = Callable[[Any, "Connection", Any], Awaitable[Struct | None]]


class Home(Protocol):
    """The server, as far as its connections need it."""

    context: object
    handlers: dict[str, Handler]
    loop: asyncio.AbstractEventLoop
    budget: Budget
    bulky: asyncio.Semaphore
    """Who makes an answer of BULKY holds it meanwhile."""
    hangups: Hangups
    idle: asyncio.Event
    """Set when a connection has come to rest, or is gone."""

    def is_worker(self, pid: int) -> bool: ...

    def let_in(self, connection: Connection, peer: Credentials) -> ProtocolError | None:
        """Why the peer is not served; None: it is one of the connections from now on."""

    def leave(self, connection: Connection) -> None:
        """The connection is none any more, or will soon be none."""

    def gone(self, connection: Connection) -> None:
        """The connection has ended."""


class Connection(asyncio.Protocol):
    """One peer: a client or a worker."""

    def __init__(self, server: Home, waiting: bytes = b"", *, too_long: bool = False) -> None:
        self.pid = 0
        self.uid = -1
        self.is_worker = False
        self.worker: str | None = None
        """The id of the worker that has attached on this connection."""
        self._server = server
        self._waiting = waiting
        self._too_long = too_long
        self._lines = Lines()
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
        self._refused = False
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
            transport.abort()  # a peer is served only when it is known who it is
            return
        self.pid, self.uid = peer.pid, peer.uid
        self.is_worker = self._server.is_worker(peer.pid)
        refusal = self._server.let_in(self, peer)
        if refusal is not None:
            self._refused = True
            transport.write(framing.encode_error(None, refusal))
            transport.close()
            return
        transport.set_write_buffer_limits(high=MAX_UNREAD)
        if self._waiting:
            self.data_received(self._waiting)
        if self._too_long:
            self._lines.drop_line()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            lines = self._lines.feed(data)
            self._backlog += lines
            self._backlog_size += sum(len(line) for line in lines if line is not None)
            self._work()
            self._server.budget.holdings.count(self)

    def eof_received(self) -> bool:
        # A peer that has closed its sending side (`socat` at the end of its input) still gets its answers.
        self._said_all = True
        self._close_when_answered()
        self._watch_hangup()
        return True

    def _watch_hangup(self) -> None:
        """Notice when the peer closes the connection. Reading would tell it too, but nothing is read at the moment."""
        if self._transport is not None and not self._transport.is_closing():
            self._server.hangups.watch(self._descriptor, self._transport.abort)

    def _close_when_answered(self) -> None:
        if self._said_all and not self._working and not self._backlog and self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        # The peer does not read. So nothing is read from the peer either, and its unread replies stay bounded.
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
        # Others may refer to this connection for a while, so it lets go of what was read.
        self._lines = Lines()
        self._server.budget.forget(self)
        self._server.leave(self)
        for work in list(self._working):
            if isinstance(work, asyncio.Task):
                work.cancel()
        self._reads.set()
        self._server.gone(self)
        self._server.idle.set()

    # --- requests -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Begin with requests as far as that is allowed, and decide whether more is read."""
        # This is called after each request that ends, so its cost must not depend on how many requests wait.
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
            self._refuse(None, ProtocolError("too_large", f"a line may have {MAX_LINE} bytes"))
            return True
        if not line.strip():
            return True  # a blank line is no request; people who type at a socket press Enter
        size = weight(line)
        room = self._server.budget.room_for(size)
        if self.worker is None and not room.take(size, self):
            return False
        asked = _Asked("", line, size, None if self.worker is not None else room)
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
        self._server.budget.holdings.count(self)
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
            # Peers may ask, go, and come again. What is made for all of them, the gone peers included, is bounded.
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
        # The parameters are not kept here, so a handler that waits for long can let go of them.
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
            self._server.budget.holdings.count(self)

    def send_away(self) -> None:
        """End the connection, to have the memory that is kept for this peer for others."""
        self._server.leave(self)
        if self._transport is None or self._transport.is_closing():
            return
        log.warning("dropped a connection that holds too much", extra={"pid": self.pid, "bytes": self.held})
        self._lines = Lines()
        self._drop_backlog()
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # it does not read, so it could not be told
            return
        refusal = ProtocolError("busy", "too much is being sent to this daemon at once", "try again in a moment")
        self._transport.write(framing.encode_error(None, refusal))
        self._transport.close()

    @property
    def stays(self) -> bool:
        """A worker holds little, and its job would be taken for lost."""
        return self.worker is not None

    @property
    def held(self) -> int:
        """Bytes that are kept for this peer."""
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

    __slots__ = ("_room", "_size", "line", "method")

    def __init__(self, method: str, line: bytes, size: int, room: Room | None) -> None:
        self.method = method
        self.line = line
        self._size = size
        self._room = room

    def give_back(self) -> None:
        """Its room is for other requests from now on. Again is fine."""
        if self._room is not None:
            self._room.give_back(self._size)
            self._room = None

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
