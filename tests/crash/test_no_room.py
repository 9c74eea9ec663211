"""A disk that takes no more, for whatever reason: what is refused changed nothing, and all goes on when there is room."""

from __future__ import annotations

import pytest

from tests.crash.trace import attached, command, needs_strace
from tests.harness import Daemon, RefusedError, wait_for


def no_room(daemon: Daemon, error: str = "ENOSPC") -> list[str]:
    return command(daemon, "-e", "trace=pwrite64", "-e", f"inject=pwrite64:error={error}")


@needs_strace
def test_a_refused_change_of_the_pool_changes_nothing(pool: Daemon) -> None:
    before = {worker["id"]: worker["pid"] for worker in pool.wait_workers(2)}
    with attached(pool.pid, no_room(pool)):
        for method, params in (
            ("worker.start", {"count": 2}),
            ("worker.stop", {}),
            ("worker.stop", {"ids": [next(iter(before))], "now": True}),
            ("config.set", {"key": "kill_grace", "value": 7}),
        ):
            with pytest.raises(RefusedError) as refused:
                pool.call(method, **params)
            assert refused.value.kind == "storage_full"
            assert pool.call("worker.list")["desired"] == 2
    assert {worker["id"]: worker["pid"] for worker in pool.wait_workers(2)} == before
    assert pool.call("config.get", key="kill_grace")["value"] == 1
    # With room again, what is asked for is what happens: nothing of the refused requests is added to it.
    assert len(pool.call("worker.start", count=1)["ids"]) == 1
    assert len(pool.wait_workers(3)) == 3
    assert sorted(pool.call("worker.stop", ids=sorted(before))["ids"]) == sorted(before)
    wait_for(lambda: not {worker["id"] for worker in pool.workers()} & set(before), "the stopped workers to be gone")
    assert len(pool.wait_workers(1)) == 1
