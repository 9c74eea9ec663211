"""What peers cost the server: those who ask for much at once, and those who do not read what they asked for."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque

import pytest

from queuectl_protocol.messages import CountResult
from queuectld.wire.access import Access
from queuectld.wire.connection import MAX_PENDING, Connection
from queuectld.wire.server import BULKY_AT_ONCE, Server
from tests.harness import request_line

Gates = deque[asyncio.Future[None]]


async def _served(asked: bytes, *, ready: bool) -> tuple[Server, Connection, socket.socket, Gates]:
    """A server, the peer's end of a connection to it, and what its handlers wait for."""
    gates: Gates = deque()

    async def handle(_context: object, _peer: object, _params: object) -> CountResult:
        if not ready:
            gate = asyncio.get_running_loop().create_future()
            gates.append(gate)
            await gate
        return CountResult(count=1)

    server = Server(None, {"dlq.purge": handle}, Access(os.geteuid(), None), 10, lambda _: None, lambda _: False)
    peer, ours = socket.socketpair(socket.AF_UNIX)
    peer.setblocking(False)
    await server.adopt(ours, asked)
    (connection,) = server.connections
    return server, connection, peer, gates


async def _calls_for(count: int) -> int:
    """How many functions are called, and generators resumed, while so many requests that came at once are answered."""
    lines = b"".join(request_line("dlq.purge", number, {"all": True}) for number in range(count))
    _, connection, peer, gates = await _served(lines, ready=False)
    calls = 0

    def one(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    answered = 0
    received = b""
    assert len(gates) == MAX_PENDING
    sys.setprofile(one)
    try:
        while gates:
            gates.popleft().set_result(None)
            await asyncio.sleep(0)
            answered += 1
    finally:
        sys.setprofile(None)
    assert answered == count
    while received.count(b"\n") < count:
        received += await asyncio.get_running_loop().sock_recv(peer, 65536)
    connection.close()
    peer.close()
    await asyncio.sleep(0)
    return calls


def test_requests_that_came_at_once_cost_what_they_cost_one_by_one() -> None:
    few, many = asyncio.run(_calls_for(300)), asyncio.run(_calls_for(1500))
    assert many < 5 * few * 1.2


REQUEST = request_line("dlq.purge", 10**15, {"all": True})
BUFFERED = 20_000
"""Answers that the kernel does not take at once, and that are not enough to stop listening to the peer."""


async def _full(count: int) -> tuple[Server, Connection, socket.socket]:
    server, connection, peer, _ = await _served(REQUEST * count, ready=True)
    await asyncio.sleep(0)
    assert connection.is_working
    return server, connection, peer


def test_a_peer_that_does_not_read_holds_up_no_end() -> None:
    async def main() -> None:
        server, connection, peer = await _full(BUFFERED)
        async with asyncio.timeout(60):
            await server.quiesce(3600)
            await server.quiesce(3600, answer_waits=True)
        assert connection.hand_over() is None
        server.close()
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_peer_that_reads_slowly_gets_all_its_answers_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "queuectld.wire.connection.READ_PATIENCE", 30.0
    )  # a loaded machine may read nothing for a second

    async def main() -> None:
        server, connection, peer = await _full(BUFFERED)
        received = 0

        async def read() -> None:
            nonlocal received
            while received < BUFFERED:
                await asyncio.sleep(0.05)
                received += (await asyncio.get_running_loop().sock_recv(peer, 256 * 1024)).count(b"\n")

        reading = asyncio.ensure_future(read())
        async with asyncio.timeout(60):
            await server.quiesce(3600)
            assert not connection.is_working
            await reading
        server.close()
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_what_a_peer_that_has_gone_asked_for_waits_for_no_other_peer() -> None:
    """But for one of its requests: peers that go and come again would leave ever more behind."""

    async def main() -> None:
        server, connection, peer, _ = await _served(b"", ready=True)
        for _ in range(BULKY_AT_ONCE):
            await server.bulky.acquire()
        connection.data_received(b"".join(request_line("status.get", number, {}) for number in range(MAX_PENDING)))
        assert connection.is_asked
        peer.close()
        async with asyncio.timeout(60):
            while connection in server.connections:
                server.idle.clear()
                await server.idle.wait()
        server.bulky.release()  # for the first of its requests
        async with asyncio.timeout(60):
            await server.bulky.acquire()  # and there is none for the others
            while connection.is_asked:
                server.idle.clear()
                await server.idle.wait()

    asyncio.run(main())
