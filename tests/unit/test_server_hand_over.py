"""What a connection hands over at a re-execution: what was asked and not answered, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket

from queuectl_protocol.messages import JobSummaries
from queuectld.wire.access import Access
from queuectld.wire.connection import Connection
from queuectld.wire.server import Server
from tests.harness import request_line

WAIT = request_line("job.wait", 1, {"ids": ["a"]})


async def _waiting(happens: asyncio.Event) -> tuple[Connection, socket.socket]:
    """A connection on which a wait was asked for, and the peer's end."""

    async def wait(_context: object, _peer: object, _params: object) -> JobSummaries:
        await happens.wait()
        return JobSummaries(jobs=[])

    server = Server(None, {"job.wait": wait}, Access(os.geteuid(), None), 10, lambda _: None, lambda _: False)
    peer, ours = socket.socketpair(socket.AF_UNIX)
    peer.setblocking(False)
    await server.adopt(ours, WAIT)
    (connection,) = server.connections
    return connection, peer


def _answer(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except BlockingIOError:
        return b""


def test_what_waits_is_asked_again() -> None:
    async def main() -> None:
        connection, peer = await _waiting(asyncio.Event())
        handed = connection.hand_over()
        assert handed is not None
        assert handed.waiting == WAIT
        connection.close()
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_what_was_answered_at_this_very_moment_is_not_asked_again() -> None:
    """Its peer would read a second answer, and take it for that to its next question."""

    async def main() -> None:
        happens = asyncio.Event()
        connection, peer = await _waiting(happens)
        await asyncio.sleep(0)
        happens.set()
        answer = b""
        for _ in range(100):  # turn by turn: one later, it would be too late to be wrong
            await asyncio.sleep(0)
            if answer := _answer(peer):
                break
        assert b'"jobs":[]' in answer
        handed = connection.hand_over()
        assert handed is not None
        assert handed.waiting == b""
        connection.close()
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())
