"""The least that a server of this kind does for an enqueue: what of our own rate is asyncio and SQLite.

It checks nothing, keeps no totals and runs nothing: a line in, a row of the same schema, a commit shared by all that
wait, a line out. Run as a process of its own: `python -m tests.benchmarks.peers.bare_server DIRECTORY`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from queuectl_protocol import framing
from queuectl_protocol.ids import Ids
from queuectld.store.sqlite import open_store
from queuectld.store.sqlite.connection import open_raw, prepare_writer
from queuectld.store.sqlite.statements import INSERT_JOBS
from tests.benchmarks.peers.base import started
from tests.harness import ROOT, wait_for

_Asked = tuple[asyncio.WriteTransport, framing.Request]


class _Params(msgspec.Struct):
    jobs: list[dict[str, str]]


class BareServer:
    """One that runs, for a client."""

    def __init__(self, directory: Path) -> None:
        self._path = _socket(directory)
        wait_for(self._answers, "the bare server")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def connect(self) -> socket.socket:
        """A new connection."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self._path))
        return connected


@contextlib.contextmanager
def running(directory: Path) -> Iterator[BareServer]:
    """Such a server, in a directory that is not there yet."""
    directory.mkdir()
    with started([sys.executable, "-m", __name__, directory], cwd=ROOT):
        yield BareServer(directory)


def _socket(directory: Path) -> Path:
    return directory / "socket"


class _Writer(threading.Thread):
    """Inserts what was asked for, in one transaction whatever is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        open_store(path).close()
        self.asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ids = Ids()
        self._raw = open_raw(path, "rw")
        prepare_writer(self._raw)

    def run(self) -> None:
        decoder = msgspec.json.Decoder(_Params)
        while True:
            batch = [self.asked.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(self.asked.get_nowait())
            now = time.time()
            rows, answers = [], []
            for transport, request in batch:
                made = self._ids.make()
                command = decoder.decode(request.params).jobs[0]["command"]  # type: ignore[arg-type]
                rows.append((made, b"", "default", 0, now, 3, 0.0, now, now, False, None, "", None, command, None, 1))
                answers.append((transport, framing.encode_result(request.id, {"ids": [made]})))
            self._raw.execute("BEGIN IMMEDIATE")
            self._raw.executemany(INSERT_JOBS[1], rows)
            self._raw.execute("COMMIT")
            self._loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: list[tuple[asyncio.WriteTransport, bytes]]) -> None:
    for transport, line in answers:
        transport.write(line)


class _Connection(asyncio.Protocol):
    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # Requests so short come whole, and one at a time.
        self._writer.asked.put((self._transport, framing.decode_request(data)))


async def _serve(directory: Path) -> None:
    writer = _Writer(directory / "queue.db")
    writer.start()
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(writer), _socket(directory))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
