"""How much memory the requests of all peers may take at once while they are worked on."""

from __future__ import annotations

import asyncio
from typing import Protocol

REQUEST_COST = 4096
"""About how many bytes a request takes beside its line."""

STRING_COST = 512
"""About how many bytes become of a string in a request: the string, what it is a part of, and what is made of that.
The worst are 10,000 jobs of one letter each in a line of 160 KB."""

LARGE = 64 * 1024
"""Bytes from which on a request counts as a large one."""

MOST_SMALL = 24 * 1024 * 1024
MOST_LARGE = 48 * 1024 * 1024
"""Bytes that all small, and all large requests together may take. A small one never waits for large ones."""


def weight(line: bytes) -> int:
    """About how many bytes of memory the request in `line` takes while it is worked on."""
    return REQUEST_COST + 2 * len(line) + line.count(b'"') * (STRING_COST // 2)


class Waiter(Protocol):
    """Who has asked for room in vain."""

    def room_again(self) -> None:
        """Ask again now."""


class Budget:
    """Bytes that are given out, and asked for back.

    Who asks in vain is called in turn when there is room. A request that is larger than all there is gets in alone.
    """

    def __init__(self, most: int) -> None:
        self.used = 0
        self._most = most
        self._waiting: dict[Waiter, None] = {}
        self._turn: Waiter | None = None
        self._calling = False

    def take(self, size: int, waiter: Waiter) -> bool:
        """Whether there is room; if not, `waiter` is called as soon as there is."""
        first = waiter is self._turn or not self._waiting
        if first and (self.used == 0 or self.used + size <= self._most):
            self.used += size
            return True
        self._waiting[waiter] = None
        return False

    def give_back(self, size: int) -> None:
        self.used -= size
        if self._waiting and not self._calling:
            self._calling = True
            asyncio.get_running_loop().call_soon(self._call_in_turn)

    def forget(self, waiter: Waiter) -> None:
        """It has gone."""
        self._waiting.pop(waiter, None)

    def _call_in_turn(self) -> None:
        self._calling = False
        for waiter in list(self._waiting):
            self._turn = waiter
            del self._waiting[waiter]
            waiter.room_again()
            self._turn = None
            if waiter in self._waiting:  # in vain: it stays the first
                self._waiting = {waiter: None, **self._waiting}
                return
