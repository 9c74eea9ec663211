"""Coroutines that begin at once: what has nothing to wait for is over at once, the others go on when they can."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from queuectld.wire.steps import Steps


class Run:
    """A coroutine under way, and what is known of it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.ended: list[Steps] = []
        self.steps = Steps(coroutine, self.ended.append)
        self.at_once = self.steps.advance()


def test_what_waits_for_nothing_is_over_at_once_and_nobody_is_told() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    run = Run(work())
    assert (run.at_once, done, run.ended) == (True, ["done"], [])


def test_it_goes_on_with_each_result_and_tells_its_end_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()
        seen: list[object] = []

        async def work() -> None:
            seen.append(await first)
            try:
                await second
            except ValueError as error:
                seen.append(str(error))

        run = Run(work())
        assert not run.at_once
        first.set_result("one")
        assert seen == [], "in the loop's own time, after what came before"
        await asyncio.sleep(0)
        assert (seen, run.ended) == (["one"], [])
        second.set_exception(ValueError("two"))
        await asyncio.sleep(0)
        assert (seen, run.ended) == (["one", "two"], [run.steps])

    asyncio.run(main())


def test_locks_events_and_threads_can_be_waited_for() -> None:
    async def main() -> None:
        lock, event, both, seen = asyncio.Lock(), asyncio.Event(), asyncio.Event(), list[object]()

        async def work() -> None:
            async with lock:
                await event.wait()
                seen.append(await asyncio.to_thread(lambda: "thread"))
            if len(seen) == 2:
                both.set()

        runs = [Run(work()), Run(work())]
        event.set()
        await both.wait()
        assert all(run.ended == [run.steps] for run in runs)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_fault_ends_it_and_comes_to_the_loop() -> None:
    async def main() -> None:
        loop, faults = asyncio.get_running_loop(), list[object]()
        loop.set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
        future = loop.create_future()

        async def work() -> None:
            await future
            raise ZeroDivisionError

        run = Run(work())
        future.set_result(None)
        await asyncio.sleep(0)
        assert run.ended == [run.steps]
        assert [type(fault) for fault in faults] == [ZeroDivisionError]

    asyncio.run(main())


def test_what_is_no_future_is_a_programming_error() -> None:
    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(0)

        with pytest.raises(AttributeError):
            Run(work())

    asyncio.run(main())
