"""The protocol on a raw socket, as `socat` would speak it: envelopes, pipelining, refusals."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.harness import Daemon, RefusedError, Wire, wait_for


def ask(daemon: Daemon, data: bytes) -> dict[str, Any]:
    """The first reply to raw bytes."""
    with daemon.wire() as wire:
        wire.send_raw(data)
        return wire.receive()


def error_of(reply: dict[str, Any]) -> tuple[int, str, object]:
    assert "result" not in reply
    assert isinstance(reply["error"]["message"], str)
    return reply["error"]["code"], reply["error"]["data"]["kind"], reply["id"]


def test_server_info(daemon: Daemon) -> None:
    info = daemon.call("server.info")
    assert (info["pid"], info["protocol"], info["generation"], info["stopping"]) == (daemon.pid, 1, 0, False)
    assert (info["state_dir"], info["socket"]) == (str(daemon.state_dir), str(daemon.socket))


@pytest.mark.parametrize("request_id", [0, 1, -5, "text", 1.5, None, "é", ""])
def test_a_reply_carries_the_id_of_its_request(daemon: Daemon, request_id: object) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "server.info"}).encode()
    reply = ask(daemon, line + b"\n")
    assert (reply["jsonrpc"], reply["id"]) == ("2.0", request_id)
    assert reply["result"]["pid"] == daemon.pid


def test_a_notification_is_carried_out_and_not_answered(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.send_raw(
            b'{"jsonrpc":"2.0","method":"job.enqueue","params":{"jobs":[{"id":"quiet","command":"true"}]}}\n'
            b'{"jsonrpc":"2.0","method":"no.such"}\n'
        )
        assert wire.call("server.info")["pid"] == daemon.pid
    assert wait_for(lambda: daemon.call("status.get")["counts"]["pending"] == 1, "the job")
    assert daemon.job("quiet")["state"] == "pending"


@pytest.mark.parametrize(
    ("line", "code", "kind", "request_id"),
    [
        (b"hello", -32700, "parse_error", None),
        (b"{", -32700, "parse_error", None),
        (b"\xff\xfe\x00", -32700, "parse_error", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"job.get","params":' + b"[" * 5000, -32700, "parse_error", None),
        (b"[]", -32600, "invalid_request", None),
        (b"1", -32600, "invalid_request", None),
        (b"null", -32600, "invalid_request", None),
        (b"{}", -32600, "invalid_request", None),
        (b'{"jsonrpc":"2.0","id":1}', -32600, "invalid_request", None),
        (b'{"id":1,"method":"server.info"}', -32600, "invalid_request", None),
        (b'{"jsonrpc":"1.0","id":1,"method":"server.info"}', -32600, "invalid_request", None),
        (b'{"jsonrpc":"2.0","id":{},"method":"server.info"}', -32600, "invalid_request", None),
        (b'{"jsonrpc":"2.0","id":7,"method":"no.such"}', -32601, "method_not_found", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"job.get"}', -32602, "invalid_params", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"job.get","params":[1]}', -32602, "invalid_params", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"job.get","params":null}', -32602, "invalid_params", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"job.get","params":{"id":"x","y":1}}', -32602, "invalid_params", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"job.get","params":{"id":"nope"}}', -32001, "not_found", 7),
    ],
)
def test_refusals(daemon: Daemon, line: bytes, code: int, kind: str, request_id: object) -> None:
    with daemon.wire() as wire:
        wire.send_raw(line + b"\n")
        assert error_of(wire.receive()) == (code, kind, request_id)
        assert wire.call("server.info")["pid"] == daemon.pid, "the connection goes on"


@pytest.mark.parametrize("depth", [1000, 100_000, 520_000])
def test_a_deep_nest_is_refused_one_way_or_the_other(daemon: Daemon, depth: int) -> None:
    """As too deep, or as no parameters: how much is too deep differs between versions of Python."""
    with daemon.wire() as wire:
        nest = b"[" * depth + b"]" * depth
        wire.send_raw(b'{"jsonrpc":"2.0","id":7,"method":"server.info","params":' + nest + b"}\n")
        assert error_of(wire.receive()) in {(-32700, "parse_error", None), (-32602, "invalid_params", 7)}
        assert wire.call("server.info")["pid"] == daemon.pid, "the connection goes on"


def test_blank_lines_and_carriage_returns_are_passed_over(daemon: Daemon) -> None:
    reply = ask(daemon, b'\n\r\n  \n{"jsonrpc":"2.0","id":1,"method":"server.info"}\r\n')
    assert reply["result"]["pid"] == daemon.pid


def test_requests_can_come_byte_by_byte(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        for byte in b'{"jsonrpc":"2.0","id":9,"method":"server.info"}\n':
            wire.send_raw(bytes([byte]))
        assert wire.receive()["id"] == 9


def test_pipelined_requests_are_all_answered(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        numbers = [wire.send("job.enqueue", jobs=[{"id": f"p{n}", "command": "true"}]) for n in range(500)]
        replies = [wire.receive() for _ in numbers]
    assert sorted(reply["id"] for reply in replies) == numbers
    assert all("result" in reply for reply in replies)
    newest = daemon.call("job.list", limit=1000)["jobs"]
    assert [job["id"] for job in newest] == [f"p{n}" for n in reversed(range(500))]


def test_a_waiting_request_does_not_hold_up_the_next(daemon: Daemon) -> None:
    job_id = daemon.enqueue("true")
    with daemon.wire() as wire:
        waiting = wire.send("job.wait", ids=[job_id])
        quick = wire.send("server.info")
        assert wire.receive()["id"] == quick
        wire.send("job.cancel", ids=[job_id])
        assert waiting in {wire.receive()["id"], wire.receive()["id"]}


def test_a_peer_that_has_said_all_still_gets_its_answers(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        for _ in range(5):
            wire.send("server.info")
        wire.connection.shutdown(socket.SHUT_WR)
        assert len([wire.receive() for _ in range(5)]) == 5
        with pytest.raises(ConnectionResetError):
            wire.receive()


def test_a_line_of_exactly_the_limit_and_one_byte_more(daemon: Daemon) -> None:
    limit = 1024 * 1024
    request = b'{"jsonrpc":"2.0","id":1,"method":"server.info"'
    with daemon.wire() as wire:
        wire.send_raw(request + b" " * (limit - len(request) - 1) + b"}\n")
        assert wire.receive()["result"]["pid"] == daemon.pid
        wire.send_raw(request + b" " * (limit - len(request)) + b"}\n")
        assert error_of(wire.receive()) == (-32004, "too_large", None)
        assert wire.call("server.info")["pid"] == daemon.pid


def test_control_characters_and_scripts_of_all_kinds_come_back_as_they_went(daemon: Daemon) -> None:
    label = 'tab\t"quote" \\ \u2028 \x7f 日本語 🦆'
    assert daemon.job(daemon.enqueue("true", label=label))["label"] == label


def test_big_jobs_and_their_limits(daemon: Daemon) -> None:
    biggest = "true #" + "x" * (128 * 1024 - 1 - 6)
    job_id = daemon.enqueue(biggest)
    assert daemon.job(job_id)["command"] == biggest
    with pytest.raises(RefusedError) as caught:
        daemon.enqueue(biggest + "x")
    assert caught.value.kind == "invalid_params"
    assert "command" in str(caught.value)


def test_a_page_of_big_jobs_can_be_read(daemon: Daemon) -> None:
    """A thousand jobs of 128 KiB are more than one answer should hold: the page is shorter, and `next` goes on."""
    command = "true #" + "x" * 120_000
    for _ in range(100):
        daemon.call("job.enqueue", jobs=[{"command": command}] * 8)
    found, after = 0, None
    with daemon.wire() as wire:
        while found == 0 or after is not None:
            page = wire.call("job.list", limit=1000, **({"after": after} if after else {}))
            found, after = found + len(page["jobs"]), page["next"]
    assert found == 800


def test_a_connection_can_be_used_for_long(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        assert isinstance(wire, Wire)
        for _ in range(2000):
            wire.call("server.info")
