"""Clients that mean harm. Each test states by how much the daemon may grow; meanwhile somebody honest is served.

See also tests/e2e/test_limits.py, where single peers misbehave, and fuzz.py, which goes on for as long as one likes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from queuectl_protocol.messages import METHODS
from tests.crash.fuzz import VALID, Fuzz, Mutator, corpus, forget_peak, is_harmless, resident, sockets
from tests.harness import Daemon, RefusedError, request_line, wait_for

MIB = 1024 * 1024


class Honest:
    """Somebody who does nothing wrong, all the time; counts how often he was served."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._served = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                job_id = f"honest{number}"
                assert self._daemon.enqueue("true", id=job_id, delay=3600) == job_id
                assert self._daemon.job(job_id)["state"] == "pending"
                self._daemon.call("job.cancel", ids=[job_id])
                self._served += 1
                self._stop.wait(0.02)
        except BaseException as error:  # noqa: BLE001 - told by whoever checks
            self._error = error

    def served(self) -> None:
        """A whole round that begins from now on."""
        before = self._served
        wait_for(lambda: self._served >= before + 2 or self._error, "an honest client to be served")
        assert self._error is None, repr(self._error)


@contextlib.contextmanager
def besieged(daemon: Daemon, mib: int) -> Iterator[Honest]:
    """An honest client is served throughout; the daemon grows by less than `mib`; at the end all is as before."""
    daemon.call("status.get")
    size, count = resident(daemon.pid), sockets(daemon.pid)
    forget_peak(daemon.pid)
    with Honest(daemon) as honest:
        honest.served()
        yield honest
        honest.served()
        grown = (resident(daemon.pid, "VmHWM") - size) // MIB
        assert grown < mib, f"grown by {grown} MiB"
    wait_for(lambda: sockets(daemon.pid) <= count, "the sockets of closed connections to be gone")
    assert daemon.call("server.info")["pid"] == daemon.pid
    assert "Traceback" not in daemon.log.read_text()


def test_mutated_requests(daemon: Daemon) -> None:
    """A short run, always the same; `make fuzz` goes on for longer, with other ones."""
    done = Fuzz(daemon, 1).run(5)
    assert done.lines >= 40, "one batch"
    assert done.honest > 0


def test_there_is_a_request_to_mutate_for_every_method() -> None:
    assert set(VALID) == set(METHODS)
    for method, variants in VALID.items():
        for params in variants:
            line = request_line(method, 1, params)
            assert line.strip() in corpus("r")


def test_mutations_can_be_repeated_and_are_not_all_refused(directory: Path) -> None:
    lines = corpus("r")
    first, second = (Mutator(random.Random("1/1"), lines) for _ in range(2))
    made = [first.line() for _ in range(500)]
    assert made == [second.line() for _ in range(500)]
    assert len(set(made)) > 300
    assert any(line in lines for line in made)


@pytest.mark.parametrize(
    ("method", "params", "harmless"),
    [
        ("server.info", {}, True),
        ("worker.start", {"count": 1}, False),
        ("worker.start", {"count": 0}, True),
        ("server.backup", {"path": "/etc/copy.db"}, False),
        ("server.backup", {"path": "@/../copy.db"}, False),
        ("server.backup", {"path": "@/copy.db"}, True),
    ],
)
def test_what_does_harm_outside_is_not_sent(
    directory: Path, method: str, params: dict[str, Any], *, harmless: bool
) -> None:
    here = directory.resolve()
    params = {key: value.replace("@", str(here)) if isinstance(value, str) else value for key, value in params.items()}
    assert is_harmless(request_line(method, 1, params), here) is harmless


def test_two_hundred_megabytes_without_a_newline(daemon: Daemon) -> None:
    """Nothing of a line beyond its limit is kept: growth below 16 MiB, however long it gets."""
    with besieged(daemon, 16) as honest, daemon.wire() as wire:
        for piece in range(200):
            wire.send_raw(b"x" * 1_000_000)
            if piece % 50 == 0:
                honest.served()
        assert wire.receive()["error"]["data"]["kind"] == "too_large"
        wire.send_raw(b"\n")
        assert wire.call("server.info")["pid"] == daemon.pid


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[int]:
    """How many connections this process can have, where `wanted` are asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(wanted + 200, hard) if hard != resource.RLIM_INFINITY else wanted + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield min(wanted, max(soft, most) - 200, (max(soft, most) - 64) // 2 - 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_connections(daemon: Daemon) -> None:
    """3,000 of them, or as many as this process may have: below 20 KiB each."""
    with (
        many_descriptors(3000) as count,
        besieged(daemon, count * 20 // 1024 + 8) as honest,
        contextlib.ExitStack() as stack,
    ):
        connections = []
        for number in range(count):
            connections.append(stack.enter_context(daemon.connect()))
            if number % 500 == 0:  # no more at once than the kernel lets wait
                honest.served()
        for connection in connections:
            connection.sendall(request_line("server.info", 1, {}))
        for connection in connections:
            assert json.loads(connection.makefile("rb").readline())["result"]["pid"] == daemon.pid
        honest.served()


def test_half_a_line_on_each_of_a_thousand_connections(daemon: Daemon) -> None:
    """A gigabyte of half lines: what all connections hold together is bounded, so growth stays below 250 MiB."""
    half = b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (MIB - 100)
    with many_descriptors(1000) as count, besieged(daemon, 250) as honest, contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(daemon.connect())
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who holds most is sent away
                connection.sendall(half)
            if number % 250 == 0:
                honest.served()
        honest.served()


def test_a_hundred_who_never_read(daemon: Daemon) -> None:
    """Each asks for 40 pages of a mebibyte: unread answers are bounded for each, and in all. Growth below 250 MiB."""
    for _ in range(20):
        daemon.call("job.enqueue", jobs=[{"command": "true #" + "x" * 10_000, "delay": 3600, "queue": "big"}] * 90)
    request = b"".join(request_line("job.list", n, {"limit": 1000, "queue": "big"}) for n in range(40))
    with besieged(daemon, 250) as honest, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(daemon.connect()).sendall(request)
        for _ in range(3):
            honest.served()


REQUESTS = [(method, params) for method, variants in VALID.items() for params in variants if method != "server.backup"]


def test_leaving_after_each_byte_of_a_request(daemon: Daemon) -> None:
    line = request_line("job.enqueue", 1, {"jobs": [{"id": "whole", "command": "true"}]})
    with besieged(daemon, 8):
        for size in range(len(line)):
            with daemon.connect() as connection:
                connection.sendall(line[:size])
        with pytest.raises(RefusedError):
            daemon.job("whole")
        with daemon.connect() as connection:
            connection.sendall(line)
        wait_for(lambda: daemon.call("job.list", queue="default", limit=1)["jobs"], "the one that was whole")


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_leaving_between_request_and_reply(daemon: Daemon, how: str) -> None:
    """Whatever was asked for, in whatever way the peer is gone."""
    with besieged(daemon, 16):
        for method, params in REQUESTS * 3:
            with daemon.connect() as connection:
                connection.sendall(request_line(method, 1, params))
                if how == "half":
                    connection.shutdown(socket.SHUT_WR)
                elif how == "reset":
                    # With something unread in its buffer a Unix socket is reset by its close.
                    connection.sendall(request_line("server.info", 2, {}))
                    connection.recv(1)


class LowDaemon(Daemon):
    """One that may open few files."""

    limit = 64

    def spawn(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "queuectld", "--state-dir", str(self.state_dir), "--socket", str(self.socket)]
        limited = ["/bin/sh", "-c", f'ulimit -n {self.limit}; exec "$@"', "sh", *command, *self.arguments, *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                limited, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/"
            )


@pytest.fixture
def low(directory: Path) -> Iterator[LowDaemon]:
    daemon = LowDaemon(directory)
    try:
        yield daemon
    finally:
        daemon.clean_up()


def test_few_descriptors_5000_jobs_and_live_followers(low: LowDaemon) -> None:
    low.start("--workers", "3")
    gate = low.directory / "gate"
    followed = low.enqueue(f"until [ -e {gate} ]; do echo tick; sleep 0.05; done; echo last")
    low.wait_state(followed, "processing")
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(low.wire()) for _ in range(6)]
        for wire in followers:
            assert "tick" in wire.call("job.logs", id=followed, follow=True)["text"]
            wire.send("job.logs", id=followed, follow=True, offset=10**6)
        ids = []
        for _ in range(10):
            ids += low.call("job.enqueue", jobs=[{"argv": ["/bin/true"]}] * 500)["ids"]
        wait_for(lambda: low.call("status.get")["counts"]["completed"] == 5000, "5,000 jobs to complete", 110)
        gate.touch()
        for wire in followers:
            assert wire.receive()["result"]["end"] is True
    assert low.output(followed).endswith("last\n")
    assert low.stop() == 0
    assert "Traceback" not in low.log.read_text()


def test_few_descriptors_and_more_followers_than_there_are_descriptors(low: LowDaemon) -> None:
    """Those who are in are served or told that it is busy; the daemon, its workers and their jobs go on."""
    low.start("--workers", "2")
    gate = low.directory / "gate"
    followed = low.enqueue(f"until [ -e {gate} ]; do echo tick; sleep 0.05; done; echo last")
    low.wait_state(followed, "processing")
    honest = low.wire()
    with honest, contextlib.ExitStack() as stack:
        for _ in range(40):
            wire = stack.enter_context(low.wire())
            with contextlib.suppress(BrokenPipeError):
                wire.send("job.logs", id=followed, follow=True, offset=10**6)
        for number in range(20):
            (job_id,) = honest.call("job.enqueue", jobs=[{"id": f"n{number}", "command": "echo fine"}])["ids"]
            assert honest.call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"
        gate.touch()
        assert honest.call("job.wait", ids=[followed])["jobs"][0]["state"] == "completed"
    wait_for(lambda: answers(low), "room for others")
    assert low.stop() == 0
    assert "Traceback" not in low.log.read_text()


def test_a_log_that_can_not_be_opened_is_no_fault_of_the_request(pool: Daemon) -> None:
    """EMFILE, in a daemon that is full: the answer is `busy`, and with room again it is the log."""
    job_id = pool.enqueue("echo hello")
    pool.wait_state(job_id, "completed")
    with pool.wire() as wire:
        wire.call("job.get", id=job_id)
        limits = resource.prlimit(pool.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # no number is free below
        with pytest.raises(RefusedError) as refused:
            wire.call("job.logs", id=job_id)
        assert refused.value.kind == "busy"
        assert wire.call("job.get", id=job_id)["state"] == "completed"
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, limits)
        assert wire.call("job.logs", id=job_id)["text"] == "hello\n"
    assert "Traceback" not in pool.log.read_text()


def test_a_proof_of_death_that_needs_a_descriptor_waits_for_one(single: Daemon) -> None:
    """A worker dies while its daemon can't even look into /proc: its job is not forgotten, nor run before the proof."""
    gate = single.directory / "gate"
    job_id = single.enqueue(f"until [ -e {gate} ]; do sleep 0.05; done")
    (worker,) = single.wait_workers(1, "busy")
    limits = resource.prlimit(single.pid, resource.RLIMIT_NOFILE)
    with single.wire() as wire:
        wire.call("job.get", id=job_id)
        resource.prlimit(single.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(worker["pid"], signal.SIGKILL)
        wait_for(lambda: "Too many open files" in single.log.read_text(), "the daemon to miss a descriptor")
        assert wire.call("job.get", id=job_id)["state"] == "processing"
        gate.touch()
        resource.prlimit(single.pid, resource.RLIMIT_NOFILE, limits)
        single.wait_state(job_id, "completed")
        assert [attempt["outcome"] for attempt in wire.call("job.get", id=job_id)["history"]] == ["lost", "completed"]
    assert "Traceback" not in single.log.read_text()


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(RefusedError, OSError):
        return bool(daemon.call("server.info"))
    return False


def test_few_descriptors_and_too_many_workers(low: LowDaemon) -> None:
    """No more workers than can be watched and connected, and still room for clients."""
    low.start()
    with pytest.raises(RefusedError, match="open files"):
        low.call("worker.start", count=60)
    low.call("config.set", key="shutdown_timeout", value=1)
    assert low.stop() == 0
    low.start("--workers", "60")
    wait_for(lambda: len([w for w in low.workers() if w["state"] == "idle"]) >= 4, "some workers")
    low.wait_state(low.enqueue("true"), "completed")
    assert low.stop() == 0
    log = low.log.read_text()
    assert "open files" in log
    assert "Traceback" not in log


def test_a_worker_comes_back_though_all_room_is_taken(low: LowDaemon) -> None:
    """After its daemon was killed: its job must not be lost because others were quicker to connect."""
    low.start("--workers", "1")
    gate = low.directory / "gate"
    job_id = low.enqueue(f"until [ -e {gate} ]; do sleep 0.05; done")
    (worker,) = low.wait_workers(1, "busy")
    os.kill(worker["pid"], signal.SIGSTOP)
    low.kill()
    low.start()
    with low.wire() as honest, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(low.wire())
        os.kill(worker["pid"], signal.SIGCONT)
        wait_for(lambda: honest.call("worker.list")["workers"][0]["state"] == "busy", "the worker to be back")
        gate.touch()
        assert honest.call("job.wait", ids=[job_id])["jobs"][0]["state"] == "completed"
        assert [attempt["outcome"] for attempt in honest.call("job.get", id=job_id)["history"]] == ["completed"]


def test_few_descriptors_and_many_workers_that_were_there_before(make_daemon: Callable[..., Daemon]) -> None:
    """A daemon that can't hold the connections of all its workers answers clients; no job is lost or run twice."""
    before = make_daemon().start()
    before.call("worker.start", count=30)
    gate = before.directory / "gate"
    jobs = [{"id": f"j{number}", "command": f"until [ -e {gate} ]; do sleep 0.1; done"} for number in range(30)]
    before.call("job.enqueue", jobs=jobs)
    wait_for(lambda: before.call("status.get")["counts"]["processing"] == 30, "all jobs to run")
    before.kill()
    low = LowDaemon(before.directory)
    try:
        low.start()
        with low.wire() as wire:
            assert len(wire.call("worker.list")["workers"]) == 30

            def back() -> int:
                # The smaller pool has some of them go after their job.
                return sum(worker["state"] in ("busy", "stopping") for worker in wire.call("worker.list")["workers"])

            wait_for(lambda: back() >= 8, "as many workers to be back as there is room for")
            for number in range(20):
                assert low.call("job.get", id=f"j{number}")["state"] == "processing"
            gate.touch()
            for job in jobs:
                assert wire.call("job.wait", ids=[job["id"]])["jobs"][0]["state"] == "completed"
                assert len(wire.call("job.get", id=job["id"])["history"]) == 1
        assert "Traceback" not in low.log.read_text()
        assert low.stop() == 0
    finally:
        low.clean_up()
