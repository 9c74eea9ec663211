"""Group commit: one thread owns the writing side of the store and commits whatever is waiting as one transaction.

No timer is needed: while one commit is on its way to the disk, the next batch collects. An operation that fails (a
refused request) fails alone: where one does, each runs in a part of its own. A commit that fails fails its whole batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar, overload

from msgspec import Struct

from queuectl_protocol.errors import ProtocolError
from queuectld import failpoints
from queuectld.store.base import (
    NothingChanged,
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageUnavailable,
    Store,
)

T = TypeVar("T")
Operation = Callable[[Store], T]


class Changed(Struct, Generic[T], frozen=True, gc=False):
    """What an operation returns that changes jobs: its result, and for those who want to know, what it changed."""

    result: T
    changes: Sequence[Any]


class Joint(ABC, Generic[T]):
    """An operation that is cheaper together with others of its kind which were submitted right before or after it."""

    @classmethod
    @abstractmethod
    def run_all(cls, store: Store, operations: Sequence[Self]) -> list[T]:
        """The results of all; an error where any of them is refused, and then each is run by itself."""

    def __call__(self, store: Store) -> T:
        return self.run_all(store, [self])[0]


_Submitted = tuple[Operation[Any], asyncio.Future[Any]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]

MAX_BATCH = 256
"""Operations at which a transaction takes no more: a bound for how long the first of them waits for the last."""


class Committer:
    """Runs operations on a store, in the order they were submitted.

    Args:
        store: owned by the committer's thread from `start` to `stop`.
        on_failure: called in the event loop's thread after an I/O error, once; nothing is taken after it.
        make_room: called in the committer's thread when the disk was full; where it made some, the batch is tried once
            more. Without room the batch is refused, and the next may succeed.
        publish: called in the event loop's thread after each commit, in the order of the commits, with all changes of
            its operations. It is called before those who submitted the operations are answered. So whoever has been
            answered, and then waits for what follows, has missed nothing; and who subscribes first and then looks at
            what is committed is told of all that the look did not show.
    """

    def __init__(
        self,
        store: Store,
        on_failure: Callable[[StorageError], None],
        make_room: Callable[[], bool],
        publish: Callable[[Sequence[Any]], None] = lambda _changes: None,
    ) -> None:
        self._store = store
        self._on_failure = on_failure
        self._make_room = make_room
        self._publish = publish
        self._collected: list[_Submitted] = []
        self._queue: queue.SimpleQueue[list[_Submitted] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None]
        self._failed: StorageError | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread.start()

    @overload
    def submit(self, operation: Operation[Changed[T]]) -> asyncio.Future[T]: ...

    @overload
    def submit(self, operation: Operation[T]) -> asyncio.Future[T]: ...

    def submit(self, operation: Operation[Any]) -> asyncio.Future[Any]:
        """Have `operation` run; the future resolves after the COMMIT that holds it, in the order of submission.

        It may run more than once, each time on what the store was before: it changes nothing else, or sets it anew.

        Raises (through the future):
            ProtocolError: the operation's own refusal, or `storage_full`, `busy`, `unavailable` or `storage_failed`.
        """
        assert self._loop is not None, "start comes first"  # noqa: S101 - a programming error
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._failed is not None:
            future.set_exception(_refusal(self._failed))
        else:
            if not self._collected:
                self._loop.call_soon(self._pass_on)
            self._collected.append((operation, future))
            if len(self._collected) == MAX_BATCH:
                self._pass_on()
        return future

    def _pass_on(self) -> None:
        """Wake the thread once for all that the event loop found to do in one go, not for the first of it alone."""
        if self._collected:
            self._queue.put(self._collected)
            self._collected = []

    async def stop(self) -> None:
        """Finish what was submitted, then end the thread."""
        if self._thread.is_alive():
            self._pass_on()
            self._queue.put(None)
            await self._ended
            self._thread.join()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch, stopping = self._take(self._queue.get(), MAX_BATCH)
            error = self._commit(batch) if batch else None
            if isinstance(error, StorageBusy | StorageUnavailable) and not stopping:
                # Who has come meanwhile has waited too: batch by batch the last of them would wait for ever.
                waiting, stopping = self._take([], None)
                self._refuse(waiting, error)
        assert self._loop is not None  # noqa: S101 - set by start
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _take(self, item: list[_Submitted] | None, most: int | None) -> tuple[list[_Submitted], bool]:
        """`item` and what else waits, until that is `most` operations; and whether the end is among it."""
        taken: list[_Submitted] = []
        while item is not None:
            taken += item
            if most is not None and len(taken) >= most:
                return taken, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return taken, False
        return taken, True

    def _commit(self, batch: list[_Submitted]) -> StorageError | None:
        """Why the batch was refused, as a whole; None where it was committed."""
        outcomes: list[_Outcome] = []
        error: StorageError | None = self._failed
        if error is None:
            outcomes, error = self._transact(batch)
            if isinstance(error, StorageFull) and self._make_room():
                outcomes, error = self._transact(batch)
        if error is None:
            self._answer(outcomes, None)
        else:
            if not isinstance(error, NothingChanged):
                self._failed = error
            # Even what was refused by its own operation: that refusal was decided on changes that are not there now.
            self._refuse(batch, error)
        return error

    def _refuse(self, batch: list[_Submitted], error: StorageError) -> None:
        refusal = _refusal(error)
        self._answer([(future, None, refusal) for _, future in batch], error)

    def _answer(self, outcomes: list[_Outcome], error: StorageError | None) -> None:
        assert self._loop is not None  # noqa: S101 - set by start
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._resolve, outcomes, error)

    def _transact(self, batch: list[_Submitted]) -> tuple[list[_Outcome], StorageError | None]:
        outcomes: list[_Outcome] = []
        store = self._store
        error: StorageError | None = None
        try:
            store.begin()
            together = self._run_together(batch)
            if together is None:
                # Undone and done again, each in a part of its own; so it is only a refusal that costs two statements
                # for each of them.
                store.rollback()
                store.begin()
                together = [(future, *self._run_one(operation)) for operation, future in batch]
            outcomes = together
            failpoints.hit("commit.before")
            store.commit()
            failpoints.hit("commit.after")
        except StorageError as failure:
            error = failure
        except Exception as fault:  # noqa: BLE001 - a thread that ends silently leaves a daemon that answers nobody
            error = StorageFailed(f"unexpectedly: {fault!r}")
        if error is not None:
            with contextlib.suppress(StorageError):
                store.rollback()
        return outcomes, error

    def _run_together(self, batch: list[_Submitted]) -> list[_Outcome] | None:
        """None where one of them is refused, which may have changed something before."""
        outcomes: list[_Outcome] = []
        try:
            for kind, submitted in itertools.groupby(batch, lambda one: type(one[0])):
                operations, futures = zip(*submitted, strict=True)
                if issubclass(kind, Joint):
                    results = kind.run_all(self._store, operations)
                else:
                    results = [operation(self._store) for operation in operations]
                outcomes += [(future, result, None) for future, result in zip(futures, results, strict=True)]
        except StorageError:
            raise
        except Exception:  # noqa: BLE001 - it will come again, and be told to who asked for it
            return None
        return outcomes

    def _run_one(self, operation: Operation[Any]) -> tuple[Any, BaseException | None]:
        store = self._store
        store.mark()
        try:
            result = operation(store)
        except StorageError:
            raise
        except Exception as refusal:  # noqa: BLE001 - one bad operation must not take the others along
            store.undo()
            return None, refusal
        store.keep()
        return result, None

    def _resolve(self, outcomes: list[_Outcome], error: StorageError | None) -> None:
        if error is None:
            self._publish([one for _, result, _ in outcomes if isinstance(result, Changed) for one in result.changes])
        for future, result, refusal in outcomes:
            if future.cancelled():
                continue  # its client is gone; what it asked for is done all the same
            if refusal is None:
                future.set_result(result.result if isinstance(result, Changed) else result)
            else:
                future.set_exception(refusal)
        if error is not None and not isinstance(error, NothingChanged):
            self._on_failure(error)


def _refusal(error: StorageError) -> ProtocolError:
    if isinstance(error, StorageFull):
        return ProtocolError("storage_full", f"the disk is full: {error}", "nothing was changed; free some space")
    if isinstance(error, StorageBusy):
        return ProtocolError("busy", str(error), "nothing was changed; try again when the other program is done")
    if isinstance(error, StorageUnavailable):
        return ProtocolError("unavailable", str(error), "nothing was changed; try again later")
    return ProtocolError(
        "storage_failed",
        f"the store failed: {error}",
        "it is unknown whether the change was stored; the daemon stops, and finds out at its next start",
    )
