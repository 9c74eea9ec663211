"""The transcripts against a living daemon, through a raw socket, whole and byte by byte."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from queuectl_protocol.lines import MAX_LINE
from tests.protocol.transcript import FOLDER, check_replies, cut, load

TRANSCRIPTS = sorted(FOLDER.glob("*.jsonl"))
DEADLINE = 60.0
"""Seconds to wait for a reply before the daemon is taken for dead."""


class Daemon(Protocol):
    """What is asked of the fixture: a private daemon without workers."""

    @property
    def socket(self) -> Path: ...


class Peer:
    """A program that speaks to the socket with nothing but bytes."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self._replies = self.socket.makefile("rb")

    def reply(self) -> dict[str, Any] | None:
        """The next one; None at the end of the stream."""
        line = self._replies.readline()
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def ask(self, request_id: str, method: str = "server.info", **params: object) -> None:
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def replies_until(self, request_id: str) -> list[dict[str, Any]]:
        """All replies before the one with this id."""
        found: list[dict[str, Any]] = []
        while (reply := self.reply()) is not None:
            if reply["id"] == request_id:
                return found
            found.append(reply)
        pytest.fail(f"the daemon closed the connection; before that came {found}")

    def end(self) -> list[dict[str, Any]]:
        """Say that nothing more comes; what is answered until the daemon closes the connection, too."""
        self.socket.shutdown(socket.SHUT_WR)
        found: list[dict[str, Any]] = []
        while (reply := self.reply()) is not None:
            found.append(reply)
        return found

    def close(self) -> None:
        self._replies.close()
        self.socket.close()


@contextmanager
def connected(daemon: Daemon) -> Iterator[Peer]:
    with closing(Peer(daemon.socket)) as peer:
        yield peer


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["whole", "bytes"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(daemon: Daemon, path: Path, *, byte_by_byte: bool) -> None:
    marks = (f"end of step {number}" for number in itertools.count(1))
    with connected(daemon) as peer:
        for step in load(path, "t" + secrets.token_hex(4)):
            for piece in cut(step.data, byte_by_byte=byte_by_byte):
                peer.socket.sendall(piece)
            replies = []
            # Replies come in any order: those due are read first, then one more request shows that no other came.
            for _ in step.expect:
                reply = peer.reply()
                assert reply is not None, f"line {step.line} ({step.about}): the daemon closed the connection"
                replies.append(reply)
            mark = next(marks)
            peer.ask(mark)
            check_replies(step, replies + peer.replies_until(mark))
        assert peer.end() == [], "a reply came that nobody was waiting for"


def test_requests_before_the_end_of_the_stream_are_answered(daemon: Daemon) -> None:
    """As with `printf ... | socat`: the write side is closed before the answers are there."""
    with connected(daemon) as peer:
        for number in range(20):
            peer.ask(f"r{number}")
        replies = peer.end()
    assert sorted(reply["id"] for reply in replies) == sorted(f"r{number}" for number in range(20))


def test_half_a_line_is_nobodys_request(daemon: Daemon) -> None:
    for half in (b'{"jsonrpc":"2.0","id":1,"method":"server.info"', b"x" * 1000, b"x" * (MAX_LINE + 1)):
        with connected(daemon) as peer:
            peer.socket.sendall(half)
            kinds = [reply["error"]["data"]["kind"] for reply in peer.end()]
            assert kinds in ([], ["parse_error"], ["too_large"])
    with connected(daemon) as peer:
        peer.ask("still there")
        assert peer.replies_until("still there") == []


def test_a_peer_that_goes_away_before_its_answer_harms_nobody(daemon: Daemon) -> None:
    for _ in range(20):
        with connected(daemon) as peer:
            peer.ask("gone", "job.list", limit=1000)
            peer.ask("gone", "config.list")
    with connected(daemon) as peer:
        peer.ask("still there")
        assert peer.replies_until("still there") == []


def test_a_line_that_never_ends_is_answered_before_its_end(daemon: Daemon) -> None:
    with connected(daemon) as peer:
        peer.socket.sendall(b"x" * (MAX_LINE + 1))
        reply = peer.reply()
        assert reply is not None
        assert (reply["id"], reply["error"]["data"]["kind"]) == (None, "too_large")
        peer.socket.sendall(b"x" * 100_000 + b"\n")
        peer.ask("after it")
        assert peer.replies_until("after it") == []


def test_a_slow_request_holds_up_no_other(daemon: Daemon) -> None:
    """`job.wait` for a job that waits itself (nobody runs it), then something quick on the same connection."""
    job = "t" + secrets.token_hex(4)
    with connected(daemon) as peer:
        peer.ask("enqueue", "job.enqueue", jobs=[{"id": job, "command": "true"}])
        assert peer.replies_until("enqueue") == []
        peer.ask("wait", "job.wait", ids=[job])
        peer.ask("quick")
        assert peer.replies_until("quick") == []
        peer.ask("cancel", "job.cancel", ids=[job])
        replies: dict[str, str] = {}
        while len(replies) < 2:
            reply = peer.reply()
            assert reply is not None
            replies[reply["id"]] = reply["result"]["jobs"][0]["state"]
        assert replies == {"wait": "cancelled", "cancel": "cancelled"}
