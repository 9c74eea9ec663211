"""The Unix server: takes in connections as long as there is room, and brings all of them to rest before the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Collection

import msgspec

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.messages import METHODS
from queuectld.host.handover import Passed
from queuectld.wire.access import Access, Credentials
from queuectld.wire.budget import Budget
from queuectld.wire.connection import Connection, Handler
from queuectld.wire.hangups import Hangups

log = logging.getLogger("queuectld.server")

ACCEPT_AT_ONCE = 100
"""Connections taken in before others are served again."""

ACCEPT_PAUSE = 0.2
"""Seconds without taking in connections after the kernel had no room for one."""

QUIESCE_LOOK = 0.05
"""Seconds between two looks whether peers have read all answers, while no request is worked on any more."""

BULKY_AT_ONCE = 2
"""Answers of the methods in BULKY that are made at once, for all peers together."""

_NO_ROOM = ProtocolError("busy", "too many connections", "try again, or close some")


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
        self._is_worker = is_worker
        self.max_workers = max_workers
        self.turned_away = turned_away
        self.connections: set[Connection] = set()
        self.loop = asyncio.get_running_loop()
        self._workers = 0
        self.idle = asyncio.Event()
        self.bulky = asyncio.Semaphore(BULKY_AT_ONCE)
        self.hangups = Hangups()
        self.budget = Budget()
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

    def let_in(self, connection: Connection, peer: Credentials) -> ProtocolError | None:
        """See `Home.let_in`. Workers and clients do not take each other's room: each of them has descriptors left."""
        if not self.access.allows(peer):
            log.warning("refused a connection", extra={"uid": peer.uid, "pid": peer.pid})
            return ProtocolError("forbidden", "this user may not use this daemon", "ask whoever runs it")
        if connection.is_worker:
            if self._workers >= self.max_workers:
                self.turned_away(connection.pid)
                return _NO_ROOM
            self._workers += 1
        elif len(self.connections) - self._workers >= self.max_connections:
            return _NO_ROOM
        self.connections.add(connection)
        self.budget.holdings.enter(connection)
        return None

    def leave(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._workers -= connection.is_worker
            self.budget.holdings.leave(connection)

    def gone(self, connection: Connection) -> None:
        self.detached(connection)

    def is_worker(self, pid: int) -> bool:
        return self._is_worker(pid)

    def hand_over(self) -> list[Passed]:
        """What a successor goes on with: see `Connection.hand_over`.

        The descriptors are copies, since asyncio closes those of its transports.
        """
        found = []
        for connection in list(self.connections):
            given = connection.hand_over()
            if given is not None:
                with contextlib.suppress(OSError):
                    found.append(msgspec.structs.replace(given, descriptor=os.dup(given.descriptor)))
        return found

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


def check_handlers(handlers: Collection[str]) -> None:
    """
    Raises:
        AssertionError: a method has no handler, or a handler no method.
    """
    missing = set(METHODS) ^ set(handlers)
    assert not missing, f"methods and handlers differ: {sorted(missing)}"  # noqa: S101
