"""Reads that may be long, off the event loop: a page of a million jobs delays nobody."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TypeVar

from queuectl_protocol.errors import ProtocolError
from queuectld.host.threads import Threads
from queuectld.store.base import Reader, StorageBusy, StorageError, StorageUnavailable

T = TypeVar("T")


class Readers:
    """A few read-only views of the store, each used by one thread at a time."""

    def __init__(self, make: Callable[[], Reader], count: int = 2) -> None:
        self._free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._all = [make() for _ in range(count)]
        for reader in self._all:
            self._free.put(reader)
        self._threads = Threads(count, "reader")

    async def run(self, read: Callable[[Reader], T]) -> T:
        """The result of `read`, which sees what was committed before this call.

        Raises:
            ProtocolError: what `read` raises; `storage_failed` where the store can't be read; `busy`: it is locked;
                `unavailable`: it can't be reached.
        """
        return await self._threads.run(self._run, read)

    def _run(self, read: Callable[[Reader], T]) -> T:
        reader = self._free.get()
        try:
            return read(reader)
        except StorageBusy as error:
            raise ProtocolError("busy", str(error), "try again when the other program is done") from error
        except StorageUnavailable as error:
            raise ProtocolError("unavailable", str(error), "try again later") from error
        except StorageError as error:
            raise ProtocolError("storage_failed", f"the store can't be read: {error}") from error
        finally:
            self._free.put(reader)

    def close(self) -> None:
        self._threads.close()
        for reader in self._all:
            reader.close()
