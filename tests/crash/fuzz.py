"""Mutated requests against a real daemon, for as long as one likes: `make fuzz SECONDS=3600 SEED=1`.

The daemon has no workers, and what would start some, or write a file outside of its directory, is not sent: what is
mutated here are also commands, and nobody knows what they would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queuectl_protocol import framing
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.messages import METHODS, BackupParams, WorkerStartParams
from tests.harness import PATIENCE, Daemon, running_daemon, wait_for
from tests.protocol.transcript import FOLDER, load

LINES = 40
"""Of one connection; fewer than a daemon works on at once, so that the last one is answered whatever the others wait
for."""

GROWTH = 96 * 1024 * 1024
"""Bytes by which the daemon may grow, however long it goes on: a few connections with a mebibyte in each of several
buffers, pages of jobs, and what an allocator keeps."""

MARK = "the last one"

VALID: dict[str, list[dict[str, Any]]] = {
    "server.info": [{}],
    "server.backup": [{"path": "@DIRECTORY@/copy.db"}],
    "job.enqueue": [
        {"jobs": [{"command": "true"}]},
        {"jobs": [{"id": "fuzz-1", "argv": ["echo", "x y"], "env": {"A": "é"}, "cwd": "/tmp", "label": "日本"}]},
        {
            "jobs": [{"command": "true", "queue": "q", "priority": -5, "max_retries": 0, "timeout": 1.5, "delay": 60}]
            * 3
        },
    ],
    "job.get": [{"id": "fuzz-1"}, {"id": "f", "env": True}],
    "job.list": [{}, {"state": "pending", "queue": "q", "limit": 1000, "after": "100"}],
    "job.cancel": [{"ids": ["fuzz-1", "f"]}],
    "job.retry": [{"ids": ["fuzz-1"]}],
    "job.wait": [{"ids": ["fuzz-1"], "timeout": 0.01}, {"ids": ["fuzz-1"]}],
    "job.logs": [{"id": "fuzz-1"}, {"id": "fuzz-1", "attempt": 1, "offset": 5, "base64": True, "follow": True}],
    "dlq.list": [{}, {"queue": "q", "limit": 3}],
    "dlq.retry": [{"ids": ["fuzz-1"]}, {"all": True}],
    "dlq.purge": [{"ids": ["fuzz-1"]}, {"all": True}],
    "config.list": [{}],
    "config.get": [{"key": "max_retries"}],
    "config.set": [{"key": "max_retries", "value": 3}, {"key": "backoff_jitter", "value": "0.5"}],
    "config.unset": [{"key": "max_retries"}],
    "worker.list": [{}],
    "worker.start": [{"count": 0}],
    "worker.stop": [{}, {"ids": ["w123456"], "now": True}],
    "status.get": [{}],
    "worker.attach": [{"worker": "w123456", "running": {"job": 1, "attempt": 1, "token": "00"}}],
    "worker.finish": [
        {"ended": {"job": 1, "attempt": 1, "token": "00", "outcome": "completed", "ended_at": 1.5, "exit_code": 0}}
    ],
    "worker.heartbeat": [{}],
}
"""Requests to begin with, for every method."""

NUMBERS = [
    b"0", b"-0", b"-1", b"1e999", b"-1e-999", b"1.5", b"2147483648", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"0.1e+2", b"01", b"0x10", b"NaN", b"-Infinity",
]  # fmt: skip
SCRAPS = [
    b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"\\", b"{",
    b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\\x", b"null", b"true", b"%s%n",
    b"\x1b[2J", b"/../../", b"'; DROP TABLE jobs; --",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, 10**30, 0.5, -1e300, "", "x", "\0", "é" * 300, "a" * 5000, "..", "1", [],
    {}, [[]], [None] * 100, {"id": "x"}, {"": ""},
]  # fmt: skip


def corpus(run: str) -> list[bytes]:
    """Lines to begin with: the transcripts', and one or more for each method."""
    lines = [
        line for path in sorted(FOLDER.glob("*.jsonl")) for step in load(path, run) for line in step.data.split(b"\n")
    ]
    for method, variants in VALID.items():
        requests = [{"jsonrpc": "2.0", "id": 1, "method": method, "params": params} for params in variants]
        lines += [json.dumps(request).encode() for request in requests]
    return [line for line in lines if line]


class Mutator:
    """Makes lines out of lines; the same ones for the same source of chance."""

    def __init__(self, source: random.Random, lines: list[bytes]) -> None:
        self._source = source
        self._lines = lines

    def line(self) -> bytes:
        line = self._source.choice(self._lines)
        for _ in range(self._source.choice([0, 1, 1, 1, 2, 3, 8])):
            change = self._source.choice([self._value, self._key, self._bytes, self._bytes, self._scrap, self._size])
            line = change(line)
        return line

    # --- what JSON knows of -------------------------------------------------------------------------------------

    def _value(self, line: bytes) -> bytes:
        """Another value at some place of the document."""
        source = self._source
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return self._bytes(line)
        places = list(_places(document))
        if not places:
            return json.dumps(source.choice(VALUES)).encode()
        holder, key = source.choice(places)
        holder[key] = "@HERE@"
        text = json.dumps(document, ensure_ascii=source.random() < 0.5).encode(errors="surrogatepass")
        new = source.choice(NUMBERS) if source.random() < 0.3 else json.dumps(source.choice(VALUES)).encode()
        return text.replace(b'"@HERE@"', new)

    def _key(self, line: bytes) -> bytes:
        """A member dropped, renamed, or there twice."""
        source = self._source
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return self._bytes(line)
        places = [(holder, key) for holder, key in _places(document) if isinstance(holder, dict)]
        if not places:
            return line
        holder, key = source.choice(places)
        value = holder.pop(key)
        kind = source.randrange(3)
        if kind == 0:
            return json.dumps(document).encode(errors="surrogatepass")
        if kind == 1:
            holder[source.choice(["", key.upper(), key + " ", "x" * 300, "\0", "id", "params"])] = value
            return json.dumps(document).encode(errors="surrogatepass")
        holder[key] = "@HERE@"
        twice = f"{json.dumps(value)}, {json.dumps(key)}: {json.dumps(source.choice(VALUES))}"
        return json.dumps(document).encode(errors="surrogatepass").replace(b'"@HERE@"', twice.encode())

    # --- what is just bytes -------------------------------------------------------------------------------------

    def _bytes(self, line: bytes) -> bytes:
        source = self._source
        data = bytearray(line)
        start = source.randrange(len(data) + 1)
        end = min(len(data), start + source.choice([0, 1, 2, 10, 1000]))
        kind = source.randrange(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << source.randrange(8)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            data[start:start] = data[start:end] * source.choice([1, 2, 50])
        elif kind == 4:
            other = source.choice(self._lines)
            data[start:] = other[source.randrange(len(other)) :]
        else:
            data[start:end] = source.randbytes(source.randrange(1, 20))
        return bytes(data)

    def _scrap(self, line: bytes) -> bytes:
        at = self._source.randrange(len(line) + 1)
        return line[:at] + self._source.choice(SCRAPS + NUMBERS) + line[at:]

    def _size(self, line: bytes) -> bytes:
        """Something of it very long or very deep; now and then longer than a line may be."""
        source = self._source
        times = source.choice([100, 1000, 1000, 10_000, 10_000, 100_000, 1_100_000])
        unit = source.choice([b"[", b'{"a":', b"x", b" ", b"9", b"\\u0041", b"\xc3\xa9", b"[],"])
        at = source.randrange(len(line) + 1)
        return line[:at] + unit * (times // len(unit)) + line[at:]


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document, as (holder, key or index)."""
    todo = [document]
    while todo:
        holder = todo.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in items:
            yield holder, key
            todo.append(value)


def is_harmless(line: bytes, directory: Path) -> bool:
    """Whether it would start no worker and write no file outside of `directory`."""
    for part in line.split(b"\n"):
        try:
            request = framing.decode_request(part)
            params = framing.decode_as(METHODS[request.method].params, request.params)
        except (ProtocolError, KeyError):
            continue
        if isinstance(params, WorkerStartParams):
            return False
        if isinstance(params, BackupParams) and not os.path.realpath(params.path).startswith(f"{directory}/"):
            return False
    return True


@dataclass
class Done:
    """What a run has done."""

    batches: int = 0
    lines: int = 0
    replies: int = 0
    refused: int = 0
    honest: int = 0


class FuzzError(AssertionError):
    """The daemon did what it must not do."""


class Fuzz:
    """One run. Each batch depends on the seed and its own number only, so that it can be repeated alone."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon = daemon
        self.seed = seed
        self.done = Done()
        self._start = resident(daemon.pid)
        forget_peak(daemon.pid)
        self._stop = threading.Event()
        self._honest_error: BaseException | None = None

    def run(self, seconds: float, first: int = 0) -> Done:
        """
        Raises:
            FuzzError: with the input that did it.
        """
        before = sockets(self.daemon.pid)
        honest = threading.Thread(target=self._be_honest)
        honest.start()
        deadline = time.monotonic() + seconds
        number = first
        try:
            while True:
                self._batch(number)
                number += 1
                if time.monotonic() > deadline:
                    break
        finally:
            self._stop.set()
            honest.join()
        self._check([])
        wait_for(lambda: sockets(self.daemon.pid) <= before, "the sockets of closed connections to be gone")
        return self.done

    def _batch(self, number: int) -> None:
        source = random.Random(f"{self.seed}/{number}")
        mutator = Mutator(source, corpus(f"r{number % 100}"))
        directory = self.daemon.directory.resolve()
        lines = [
            line
            for line in (mutator.line().replace(b"@DIRECTORY@", os.fsencode(directory)) for _ in range(LINES))
            if is_harmless(line, directory)
        ]
        data = b"".join(line + b"\n" for line in lines)
        try:
            if source.random() < 0.25:
                self._leave(data[: source.randrange(len(data) + 1)], source)
            else:
                self._converse(data, source)
        except (OSError, ValueError) as error:
            raise self._failure(f"{type(error).__name__}: {error}", lines) from error
        self.done.batches += 1
        self.done.lines += len(lines)
        self._check(lines)
        if number % 50 == 49:
            self._tidy_up()

    def _leave(self, data: bytes, source: random.Random) -> None:
        """Send, and be gone: at once, or after the first answers, with nothing read."""
        with self.daemon.connect() as connection:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(data)
            if source.random() < 0.3:
                connection.setblocking(True)
                connection.shutdown(socket.SHUT_WR)

    def _converse(self, data: bytes, source: random.Random) -> None:
        """Send in pieces of any size, read all that comes, and see that what is sent last is answered."""
        last = json.dumps({"jsonrpc": "2.0", "id": MARK, "method": "server.info"}).encode()
        pieces = _cut(data + last + b"\n", source)
        received = bytearray()
        with self.daemon.connect() as connection, selectors.DefaultSelector() as selector:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            deadline = time.monotonic() + PATIENCE
            at = looked = 0
            # Answers come in any order: what follows that of the last request may be long, and not be whole.
            while MARK.encode() not in received[max(0, looked - len(MARK)) :]:
                looked = len(received)
                if time.monotonic() > deadline:
                    raise ValueError("no answer to the last request")
                for _, events in selector.select(1.0):
                    if events & selectors.EVENT_WRITE:
                        at += connection.send(pieces[0][at:])
                        if at == len(pieces[0]):
                            del pieces[0]
                            at = 0
                            if not pieces:
                                selector.modify(connection, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ:
                        more = connection.recv(262_144)
                        if not more:
                            raise ValueError("the daemon closed the connection")
                        received += more
        for line in bytes(received).split(b"\n")[:-1]:
            self._look_at(json.loads(line))

    def _look_at(self, reply: Any) -> None:
        if reply.get("jsonrpc") != "2.0" or "id" not in reply or ("result" in reply) == ("error" in reply):
            raise ValueError(f"no reply of JSON-RPC: {reply!r:.200}")
        self.done.replies += 1
        if "error" in reply:
            self.done.refused += 1
            if reply["error"]["data"]["kind"] in ("internal_error", "storage_failed", "storage_full"):
                raise ValueError(f"{reply!r:.500}")

    def _check(self, lines: list[bytes]) -> None:
        daemon = self.daemon
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            raise self._failure(f"the daemon ended with {daemon.process.returncode}", lines)
        if "Traceback" in (text := daemon.log.read_text(errors="replace")):
            raise self._failure(f"a traceback in the log:\n{text[-4000:]}", lines)
        grown = resident(daemon.pid, "VmHWM") - self._start
        if grown > GROWTH:
            raise self._failure(f"the daemon has grown by {grown // 1024} KiB", lines)
        if self._honest_error is not None:
            raise self._failure(f"an honest client was not served: {self._honest_error!r}", lines)

    def _failure(self, what: str, lines: list[bytes]) -> FuzzError:
        with tempfile.NamedTemporaryFile(prefix="fuzz-", suffix=".lines", delete=False) as file:
            file.write(b"\n".join(lines) + b"\n")
        shown = "\n".join(f"  {line[:1000]!r}{' ...' if len(line) > 1000 else ''}" for line in lines)
        log = "\n".join(self.daemon.log.read_text(errors="replace").splitlines()[-30:])
        again = f"SEED={self.seed} FIRST={self.done.batches}"
        return FuzzError(f"{what}\nthe batch ({again}; its lines are in {file.name}):\n{shown}\nthe log:\n{log}")

    def _be_honest(self) -> None:
        """One who does nothing wrong, and has to be served all the time."""
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                job_id = f"honest-{self.seed}-{number}"
                job = {"id": job_id, "command": "true", "queue": "honest", "delay": 3600}
                with self.daemon.wire() as wire:
                    assert wire.call("job.enqueue", jobs=[job])["ids"] == [job_id]
                    wire.call("job.list", queue="honest", limit=1)
                    wire.call("status.get")
                    wire.call("server.info")
                self.done.honest += 1
                self._stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - told by the other thread
            self._honest_error = error

    def _tidy_up(self) -> None:
        """So that it can go on for hours: old jobs go, and settings are what they were."""
        call = self.daemon.call
        for setting in call("config.list")["settings"]:
            call("config.unset", key=setting["key"])
        call("config.set", key="keep_cancelled_count", value=100)
        while waiting := call("job.list", state="pending", limit=1000)["jobs"]:
            call("job.cancel", ids=[job["id"] for job in waiting])
        for copy in self.daemon.directory.glob("copy*"):
            copy.unlink()


def _cut(data: bytes, source: random.Random) -> list[bytes]:
    size = source.choice([1 << 30, 1 << 30, 65536, 4096, 1000])
    return [data[start : start + size] for start in range(0, len(data), size)]


def resident(pid: int, which: str = "VmRSS") -> int:
    """Bytes of memory that a process has; with `VmHWM` the most that it has had since `forget_peak`."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{which}:")]
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    """The most that a process has had is what it has now; proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def sockets(pid: int) -> int:
    """How many a process has open. Of files, SQLite keeps some open: to close one would drop the locks of others."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


def main() -> int:
    """`python -m tests.crash.fuzz SECONDS [SEED [FIRST]]`; the number of a batch to begin with."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else random.SystemRandom().randrange(10**6)
    first = int(sys.argv[3]) if len(sys.argv) > 3 and sys.argv[3] else 0
    print(f"fuzzing for {seconds:g} s; the same again: SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="qctl-") as directory, running_daemon(Path(directory)) as daemon:
        try:
            done = Fuzz(daemon, seed).run(seconds, first)
        except FuzzError as failure:
            print(failure)
            return 1
        print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
