"""How much memory all peers together may take: their requests while they are worked on, and what is kept for them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
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


MAX_HELD = 48 * 1024 * 1024
"""Bytes that all peers together may have this process keep: half lines, requests, unread replies. Each of them may have
a part of that, but thousands at their own limits would be gigabytes: the peer that holds most is sent away then."""


def weight(line: bytes) -> int:
    """About how many bytes of memory the request in `line` takes while it is worked on."""
    return REQUEST_COST + 2 * len(line) + line.count(b'"') * (STRING_COST // 2)


class Waiter(Protocol):
    """Who has asked for room in vain."""

    def room_again(self) -> None:
        """Ask again now."""


class Room:
    """Bytes that are given out, and given back.

    A waiter that asks in vain is called in its turn when there is room. A request that is larger than the whole room
    gets in alone.
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


class Holder(Hashable, Protocol):
    """A peer for which something is kept."""

    @property
    def held(self) -> int:
        """Bytes that are kept for the peer now."""

    @property
    def stays(self) -> bool:
        """Whether the peer is never sent away: it holds little."""

    def send_away(self) -> None:
        """End the connection, so that nothing is kept for the peer any more."""


class Holdings:
    """What is kept for all peers. The peers that hold most are sent away when it becomes too much.

    Args:
        most: bytes.
    """

    def __init__(self, most: int = MAX_HELD) -> None:
        self.total = 0
        self._most = most
        self._counted: dict[Holder, int] = {}

    def enter(self, holder: Holder) -> None:
        self._counted[holder] = 0

    def leave(self, holder: Holder) -> None:
        """Nothing of the peer's is counted any more. A peer that has left already is fine."""
        self.total -= self._counted.pop(holder, 0)

    def count(self, holder: Holder) -> None:
        """What is kept for a peer has changed. A peer that has left already is fine."""
        if holder in self._counted:
            held = holder.held
            self.total += held - self._counted[holder]
            self._counted[holder] = held
            if self.total > self._most:
                self._make_room()

    def _make_room(self) -> None:
        for holder in self._counted:
            self._counted[holder] = holder.held  # nothing tells when a peer reads
        self.total = sum(self._counted.values())
        if self.total <= self._most:
            return
        for holder in sorted(self._counted, key=lambda one: self._counted[one], reverse=True):
            if self.total <= self._most * 7 // 8:
                break
            if not holder.stays:
                self.leave(holder)
                holder.send_away()


class Budget:
    """All that peers may take of the daemon's memory."""

    def __init__(self) -> None:
        self._small, self._large = Room(MOST_SMALL), Room(MOST_LARGE)
        self.holdings = Holdings()

    def room_for(self, size: int) -> Room:
        """Where a request of so many bytes (see `weight`) gets its room."""
        return self._small if size < LARGE else self._large

    def forget(self, waiter: Waiter) -> None:
        """The waiter is gone: it is not called any more."""
        self._small.forget(waiter)
        self._large.forget(waiter)
