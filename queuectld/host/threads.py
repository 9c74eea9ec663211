"""Threads for what would keep the event loop waiting: reads of the database and of logs, copies, removals."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from queuectld.host.start_error import StartError

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A few threads, all of them started at once.

    A job can use up the processes and the memory that its user may have, and the daemon's user is the same. A thread
    that were only started when it is needed could not be had then.
    """

    def __init__(self, count: int, name: str) -> None:
        """
        Raises:
            StartError: the system gives no more threads.
        """
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        # The executor starts a thread for each piece of work that finds none idle: these wait for each other.
        met = threading.Barrier(count + 1)
        try:
            for _ in range(count):
                self._executor.submit(met.wait)
        except RuntimeError as error:
            met.abort()
            self.close()
            hint = "end some of this user's processes, or raise the limit of them (`ulimit -u`)"
            raise StartError(f"no threads can be had: {error}", hint) from error
        met.wait()

    async def run(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """The result of `work`, once a thread is free and has done it."""
        # What was cancelled stays in the executor's queue until its turn comes. It is emptied, so that peers which ask
        # and leave, again and again, have nothing kept here.
        piece = [functools.partial(work, *arguments, **options)]

        def do() -> T:
            return piece[0]()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, do)
        finally:
            piece.clear()

    def close(self, *, drop_waiting: bool = False) -> None:
        """End the threads after what they do, and after what waits for them unless it is dropped; blocks until then."""
        self._executor.shutdown(wait=True, cancel_futures=drop_waiting)
