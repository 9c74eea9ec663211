"""Coroutines that begin at once, for requests: most wait for one commit, and a task for each is most of their cost.

Python 3.12 has eager tasks for that (asyncio.eager_task_factory), 3.11 has not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any


class Steps:
    """Runs a coroutine that waits for futures, of asyncio or what is awaited like them.

    What needs a task of its own (asyncio.timeout, cancellation, asyncio.sleep(0)) must not be run by this.
    """

    __slots__ = ("_coroutine", "_ended")

    def __init__(self, coroutine: Coroutine[Any, Any, None], ended: Callable[[Steps], None]) -> None:
        """`ended` is called when it has ended, unless its first step was the last."""
        self._coroutine = coroutine
        self._ended = ended

    def advance(self) -> bool:
        """Run until it waits for something, or ends; whether it has ended."""
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return True
        # The other half of what Future.__await__ does, as asyncio's own tasks do it.
        future._asyncio_future_blocking = False  # noqa: SLF001
        future.add_done_callback(self._go_on)
        return False

    def _go_on(self, _future: object) -> None:
        ended = True
        try:
            ended = self.advance()
        finally:
            if ended:
                self._ended(self)
