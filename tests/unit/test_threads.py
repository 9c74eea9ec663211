"""Threads that are there before they are needed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

from queuectld.host.threads import Threads
from tests.harness import CHECKOUT


def test_all_run_from_the_beginning_and_are_used() -> None:
    before = threading.active_count()
    threads = Threads(3, "some")
    assert threading.active_count() == before + 3

    async def use() -> list[int]:
        met = threading.Barrier(3)
        return await asyncio.gather(*(threads.run(met.wait, timeout=60) for _ in range(3)))

    assert sorted(asyncio.run(use())) == [0, 1, 2]
    threads.close()
    assert threading.active_count() == before


def test_what_was_cancelled_before_its_turn_keeps_nothing() -> None:
    """A peer that asks and leaves, again and again, would have the daemon keep what it asked with."""

    class Asked:
        pass

    async def use() -> bool:
        threads, gate = Threads(1, "some"), threading.Event()
        first = asyncio.ensure_future(threads.run(gate.wait))
        await asyncio.sleep(0)
        asked = Asked()
        kept = weakref.ref(asked)
        second = asyncio.ensure_future(threads.run(id, asked))
        await asyncio.sleep(0)
        del asked
        second.cancel()
        await asyncio.wait({second})
        del second
        gc.collect()
        is_kept = kept() is not None
        gate.set()
        await first
        threads.close()
        return is_kept

    assert not asyncio.run(use())


def test_where_there_are_none_it_is_told_and_nothing_hangs() -> None:
    program = """
import resource, threading
from queuectld.host.start_error import StartError
from queuectld.host.threads import Threads
threading.stack_size(256 * 1024 * 1024)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 600 * 1024 * 1024, resource.RLIM_INFINITY))
try:
    Threads(8, "some")
except StartError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": CHECKOUT},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "no threads can be had" in done.stdout
