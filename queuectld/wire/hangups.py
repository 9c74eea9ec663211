"""Notices that a peer has gone, also one that is not read from at the moment."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable


class Hangups:
    """Calls back when a peer has closed its whole connection; made inside a running loop.

    asyncio learns of that only by reading, and reads neither from a peer that has said all it wanted nor from one that
    has asked for too much at once. epoll(7) tells EPOLLHUP without being asked for anything, and of a Unix socket only
    when both directions are closed, so who has merely said all is not taken for gone.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_readable)

    def watch(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` if the peer of `descriptor` goes, or has gone, until `forget`."""
        if descriptor not in self._calls:
            self._calls[descriptor] = call
            self._epoll.register(descriptor, 0)

    def forget(self, descriptor: int) -> None:
        """To be called before `descriptor` is closed; one that is not watched is fine."""
        if self._calls.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _on_readable(self) -> None:
        for descriptor, _events in self._epoll.poll(0):
            call = self._calls.get(descriptor)
            self.forget(descriptor)
            if call is not None:
                call()
