"""Very many jobs: batches, a few of them on their way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from queuectl_client.errors import BadRequest
from queuectl_client.jobs.specs import with_id
from queuectl_client.wire.connection import ConnectionLost
from queuectl_client.wire.link import Link
from queuectl_client.wire.typed import result_of
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobSpec
from queuectl_protocol.messages import EnqueueParams, EnqueueResult

if TYPE_CHECKING:
    from queuectl_client.wire.connection import Connection, Reply

WINDOW = 4
"""Batches on their way at once: the daemon's next commit collects while one goes to the disk."""


class _Batch:
    """One request; sent again on the next connection if this one is lost before its reply."""

    def __init__(self, jobs: list[JobSpec]) -> None:
        self.params = EnqueueParams(jobs=jobs)
        self.request = 0
        self.reply: Reply | None = None


class _Pipeline:
    """Batches that were sent and are not acknowledged yet, oldest first."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sent_on: Connection | None = None
        self._waiting: deque[_Batch] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, jobs: list[JobSpec]) -> None:
        connection = self._link.open()
        batch = _Batch(jobs)
        self._waiting.append(batch)
        if connection is not self._sent_on:
            return  # `settle` sends everything that is waiting on the new one
        try:
            batch.request = connection.send("job.enqueue", batch.params)
        except ConnectionLost:
            self._lost()
        except Exception:
            self._waiting.pop()  # it was not sent, so no reply will come
            raise

    def settle(self) -> list[str]:
        """Wait for the oldest batch.

        Returns:
            Its ids.

        Raises:
            ProtocolError: it was refused, and is waiting no more.
        """
        batch = self._waiting[0]
        while batch.reply is None:
            try:
                connection = self._link.open()
                self._resend(connection)
                self._receive(connection)
            except ConnectionLost:
                self._lost()
        self._waiting.popleft()
        self._link.answered()
        return result_of(batch.reply, EnqueueResult).ids

    def _resend(self, connection: Connection) -> None:
        """Send again what an older connection took with it: the ids were made here, so nothing is enqueued twice."""
        if connection is self._sent_on:
            return
        self._sent_on = connection
        for batch in self._waiting:
            if batch.reply is None:
                batch.request = connection.send("job.enqueue", batch.params)

    def _receive(self, connection: Connection) -> None:
        """Take one reply, whichever batch it is for."""
        reply = connection.receive()
        for batch in self._waiting:
            if batch.request == reply.id:
                batch.reply = reply

    def _lost(self) -> None:
        self._sent_on = None
        self._link.lost()


class Enqueuing:
    """Batches of jobs on their way to the daemon, a few at once. Iterate over it, once; see `Client.enqueue_batches`.

    Attributes:
        taken: so many batches were taken from the source, and the daemon was there to be sent them.
        settled: of so many it is known what became of them; they are the first ones.
        refused: which of these were not enqueued, counted from 0.
    """

    def __init__(self, link: Link, source: Iterable[Sequence[JobSpec]]) -> None:
        self._link = link
        self._source = iter(source)
        self._pipeline = _Pipeline(link)
        self._failure: Exception | None = None
        self.taken = 0
        self.settled = 0
        self.refused: list[int] = []

    def __iter__(self) -> Iterator[list[str]]:
        try:
            while (batch := self._next()) is not None:
                if not batch:
                    yield from self._settle(0)
                    continue
                try:
                    self._pipeline.send([with_id(job) for job in batch])
                    self.taken += 1
                except BadRequest as error:
                    self.taken += 1
                    yield from self._settle(0)  # batches are accounted for in order
                    self._refuse(error)
                yield from self._settle(WINDOW - 1)
            yield from self._settle(0)
        except BaseException:
            # Replies that nobody waits for any more must not meet the next call.
            self._link.close()
            raise
        if self._failure is not None:
            raise self._failure

    def _next(self) -> Sequence[JobSpec] | None:
        """The next batch; None if there is none, or something went wrong, after which nothing more is sent."""
        if self._failure is not None:
            return None
        try:
            return next(self._source, None)
        except Exception as error:  # noqa: BLE001 - raised once it is known what became of what was sent before
            self._failure = error
            return None

    def _settle(self, at_rest: int) -> Iterator[list[str]]:
        """Wait until no more than `at_rest` batches are on their way."""
        while len(self._pipeline) > (at_rest if self._failure is None else 0):
            try:
                ids = self._pipeline.settle()
            except ProtocolError as error:
                self._refuse(error)
            else:
                self.settled += 1
                yield ids

    def _refuse(self, error: Exception) -> None:
        self.refused.append(self.settled)
        self.settled += 1
        # What the daemon refuses comes before what is wrong with a later batch.
        if not isinstance(self._failure, ProtocolError):
            self._failure = error
