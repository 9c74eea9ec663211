"""Reads beside the loop: side by side, never two at once on one view, faults told as the wire tells them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from queuectl_protocol.errors import ProtocolError
from queuectld.store.base import Reader, StorageFailed, StorageUnavailable
from queuectld.store.readers import Readers
from tests.store.memory import MemoryReader, MemoryStore


class CountedReader(MemoryReader):
    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def made(count: int) -> tuple[Readers, list[CountedReader]]:
    views: list[CountedReader] = []

    def make() -> Reader:
        views.append(CountedReader())
        return views[-1]

    return Readers(make, count), views


def test_a_long_read_does_not_hold_up_the_next() -> None:
    readers, _ = made(2)
    gate = threading.Event()

    async def main() -> None:
        slow = asyncio.ensure_future(readers.run(lambda _reader: gate.wait(30)))
        assert await readers.run(lambda _reader: "quick") == "quick"
        assert not slow.done()
        gate.set()
        assert await slow

    asyncio.run(main())
    readers.close()


def test_no_view_is_used_by_two_at_once() -> None:
    readers, _ = made(3)
    using: set[int] = set()
    twice: list[int] = []

    def use(reader: Reader) -> None:
        if id(reader) in using:
            twice.append(id(reader))
        using.add(id(reader))
        threading.Event().wait(0.001)
        using.discard(id(reader))

    async def main() -> None:
        await asyncio.gather(*(readers.run(use) for _ in range(100)))

    asyncio.run(main())
    readers.close()
    assert not twice


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (ProtocolError("not_found", "no"), "not_found"),
        (StorageFailed("disk I/O error"), "storage_failed"),
        (StorageUnavailable("no answer"), "unavailable"),
    ],
)
def test_a_failed_read_is_told_and_its_view_is_used_again(fault: Exception, kind: str) -> None:
    readers, _ = made(1)

    def fail(_reader: Reader) -> None:
        raise fault

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ProtocolError) as caught:
                await readers.run(fail)
            assert caught.value.kind == kind
        assert await readers.run(lambda _reader: 1) == 1

    asyncio.run(main())
    readers.close()


def test_close_waits_for_reads_and_closes_each_view_once() -> None:
    readers, views = made(2)
    seen: list[int] = []

    def read(reader: Reader) -> None:
        threading.Event().wait(0.05)
        seen.extend(view.closed for view in views if view is reader)

    async def main() -> None:
        reading = asyncio.ensure_future(readers.run(read))
        await asyncio.sleep(0)  # it is begun
        await asyncio.to_thread(readers.close)
        await reading

    asyncio.run(main())
    assert seen == [0]
    assert [view.closed for view in views] == [1, 1]
