"""Putting jobs in: in bulk, one at a time, over many connections."""

from __future__ import annotations

import select
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from queuectld.store.sqlite import open_store
from queuectld.store.sqlite.statements import INSERT_JOBS
from tests.benchmarks import ours
from tests.benchmarks.context import Context, new_job
from tests.benchmarks.figures import alternate, number, say
from tests.benchmarks.peers import bare_server
from tests.harness import request_line

CONNECTIONS = 64


def measure(context: Context) -> None:
    """Rows `bulk enqueue`, `one durable enqueue`, `64 connections`."""
    _bulk(context)
    _durable(context)
    _connections(context)


def _bulk(context: Context) -> None:
    jobs = context.sizes.bulk
    directory = context.fresh("bulk")
    directory.mkdir()
    file = ours.job_file(directory / "jobs", jobs)

    def whole_process() -> float:
        with ours.running(context.fresh("bulk"), 0) as target:
            begin = time.perf_counter()
            ours.enqueue_file(target.daemon, file)
            seconds = time.perf_counter() - begin
            counts = target.daemon.call("status.get")["counts"]
            assert counts["pending"] == jobs, counts
        return jobs / seconds

    series = alternate(
        min(context.sizes.rounds, 5),
        {
            "queuectl enqueue --file": ("jobs/s", whole_process),
            "sqlite3.executemany": ("jobs/s", lambda: _executemany(context.fresh("bare"), jobs)),
        },
    )
    context.findings.ratio("bulk.sqlite", *series)


LANE = 1
"""That of all jobs here: they have one queue and one priority."""


def _executemany(directory: Path, jobs: int) -> float:
    """Rows a second into the same schema with the same guarantee, all in one transaction."""
    now = time.time()
    made = (new_job(now) for _ in range(jobs))
    rows = [
        (job.id, job.digest, job.queue, job.priority, job.run_at, job.max_retries, job.timeout, now, now, job.exact_env,
         None, job.label, job.cwd, job.command, None, LANE)
        for job in made
    ]  # fmt: skip
    connection = _bare_database(directory)
    begin = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT_JOBS[1], rows)
    connection.execute("COMMIT")
    rate = jobs / (time.perf_counter() - begin)
    connection.close()
    return rate


def _bare_database(directory: Path) -> sqlite3.Connection:
    """The same schema, with a plain connection to it; WAL, and synced at each commit."""
    directory.mkdir()
    open_store(directory / "queue.db").close()
    connection = sqlite3.connect(directory / "queue.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL").fetchall()
    return connection


def _durable(context: Context) -> None:
    calls = context.sizes.calls
    directory = context.fresh("commit")
    bare = _bare_database(directory)
    bare.execute("CREATE TABLE one (number INTEGER PRIMARY KEY, command TEXT NOT NULL)")

    def commit() -> None:
        bare.execute("BEGIN IMMEDIATE")
        bare.execute("INSERT INTO one (command) VALUES (?)", (ours.COMMAND,))
        bare.execute("COMMIT")

    with ours.running(context.fresh("durable"), 0) as target:
        series = alternate(
            context.sizes.rounds,
            {
                "one enqueue, p50": ("ms", lambda: p50(calls, lambda: target.put(1))),
                "one bare commit, p50": ("ms", lambda: p50(calls, commit)),
            },
        )
    bare.close()
    context.findings.ratio("durable.commit", *series)


def p50(calls: int, call: Callable[[], object]) -> float:
    """The median of so many calls, in milliseconds."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def _connections(context: Context) -> None:
    jobs = context.sizes.connected
    few = max(jobs // 8, 1)
    bare_directory = context.fresh("bare-server")
    with ours.running(context.fresh("connections"), 0) as target, bare_server.running(bare_directory) as bare:
        many, one, bare_many, bare_one = alternate(
            context.sizes.rounds,
            {
                f"{CONNECTIONS} connections": ("jobs/s", lambda: _rate(target.daemon.connect, CONNECTIONS, jobs)),
                "1 connection": ("jobs/s", lambda: _rate(target.daemon.connect, 1, few)),
                "bare, many": ("jobs/s", lambda: _rate(bare.connect, CONNECTIONS, jobs)),
                "bare, one": ("jobs/s", lambda: _rate(bare.connect, 1, few)),
            },
        )
    context.findings.ratio("connections.64", many, one)
    context.findings.notes.append(
        f"A server of asyncio that does nothing but insert into the same schema, its commits shared as ours are, takes "
        f"{bare_many.text()} over {CONNECTIONS} connections and {bare_one.text()} over one, "
        f"{number(bare_many.median / bare_one.median)} times as many; "
        f"ours does {number(100 * many.median / bare_many.median)} % of its rate."
    )
    say(context.findings.notes[-1])


def _rate(connect: Callable[[], socket.socket], connections: int, jobs: int) -> float:
    """Jobs a second over so many connections, each of which sends the next when it has the last one's answer."""
    request = request_line("job.enqueue", 1, {"jobs": [{"command": ours.COMMAND}]})
    opened = [connect() for _ in range(connections)]
    poller = select.epoll()
    by_descriptor: dict[int, socket.socket] = {}
    for connection in opened:
        poller.register(connection, select.EPOLLIN)
        by_descriptor[connection.fileno()] = connection
    begin = time.perf_counter()
    for connection in opened:
        connection.sendall(request)
    asked, answered = connections, 0
    while answered < asked:
        for descriptor, _ in poller.poll():
            reply = by_descriptor[descriptor].recv(65536)
            assert b'"result"' in reply, reply
            assert reply.endswith(b"\n"), "half a line, of so few bytes"
            answered += 1
            if asked < jobs:
                asked += 1
                by_descriptor[descriptor].sendall(request)
    seconds = time.perf_counter() - begin
    poller.close()
    for connection in opened:
        connection.close()
    return asked / seconds
