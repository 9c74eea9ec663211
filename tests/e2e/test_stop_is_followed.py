"""While a stopping daemon lets attempts finish, those who wait for them still hear of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import Daemon, wait_for


def ask(daemon: Daemon, method: str, **params: object) -> tuple[object, object]:
    connection = daemon.connect()
    connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
    return connection, connection.makefile("rb")


def answer(asked: tuple[object, object]) -> dict[str, object]:
    connection, lines = asked
    line = lines.readline()  # type: ignore[attr-defined]
    lines.close()  # type: ignore[attr-defined]
    connection.close()  # type: ignore[attr-defined]
    reply: dict[str, object] = json.loads(line)
    return reply


def test_an_attempt_that_ends_in_time_is_told_to_who_waits(pool: Daemon, directory: Path) -> None:
    pool.call("config.set", key="shutdown_timeout", value=60)
    gate = directory / "gate"
    job = pool.enqueue(f"echo one; while [ ! -e {gate} ]; do sleep 0.02; done; echo two")
    pending = pool.enqueue("true", delay=1000)
    wait_for(lambda: pool.job(job)["history"] and pool.output(job), "the first output")
    waiting, following = ask(pool, "job.wait", ids=[job]), ask(pool, "job.logs", id=job, offset=4, follow=True)
    hopeless = ask(pool, "job.wait", ids=[pending])
    assert pool.process is not None
    pool.process.terminate()
    wait_for(lambda: pool.call("server.info")["stopping"], "the stop to begin")
    gate.touch()
    assert answer(following)["result"]["text"] == "two\n"  # type: ignore[index]
    assert answer(waiting)["result"]["jobs"][0]["state"] == "completed"  # type: ignore[index]
    assert answer(hopeless)["error"]["data"]["kind"] == "shutting_down"  # type: ignore[index]
    assert pool.process.wait(60) == 0


@pytest.mark.parametrize("method", ["job.wait", "job.logs"])
def test_who_waits_for_nothing_does_not_hold_up_the_stop(daemon: Daemon, method: str) -> None:
    job = daemon.enqueue("true")
    params = {"ids": [job]} if method == "job.wait" else {"id": job, "follow": True}
    waiting = ask(daemon, method, **params)
    assert daemon.stop() == 0
    assert answer(waiting)["error"]["data"]["kind"] == "shutting_down"  # type: ignore[index]
