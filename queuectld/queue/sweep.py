"""Removes ended jobs that are too old or too many, in small steps, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobState
from queuectld import failpoints
from queuectld.attempt_files.log_reading import log_directories, logs_in, remove_logs
from queuectld.core import retention
from queuectld.core.settings import Settings
from queuectld.host.clock import Clock
from queuectld.host.threads import Threads
from queuectld.queue.changes import Change
from queuectld.queue.remove import remove_ended
from queuectld.store.base import Deleted, Reader
from queuectld.store.committer import Committer
from queuectld.store.readers import Readers

log = logging.getLogger("queuectld.retention")

STEP = 200
"""Jobs that are looked at or removed in one transaction."""

BREATH = 1.0
"""Seconds between two sweeps at the least, however many jobs end."""


class Sweeper:
    """Sweeps when jobs may have become too many (see `changed`) or too old; in between it sleeps."""

    def __init__(
        self,
        committer: Committer,
        readers: Readers,
        settings: Callable[[], Settings],
        clock: Clock,
        state_dir: Path,
        threads: Threads,
    ) -> None:
        self._committer = committer
        self._readers = readers
        self._settings = settings
        self._clock = clock
        self._state_dir = state_dir
        self._threads = threads
        self._noticed = asyncio.Event()

    def changed(self, changes: Sequence[Change]) -> None:
        """For the change stream: a job that has ended may be one too many."""
        if (
            not self._noticed.is_set()
            and retention.counts_matter(self._settings())
            and any(change.after is not None and change.after.end is not None for change in changes)
        ):
            self._noticed.set()

    def settings_changed(self) -> None:
        self._noticed.set()

    async def run(self) -> None:
        """Sweep for ever; cancelled at the end."""
        looked_at = -retention.LATEST
        while True:
            pause = retention.pause(self._settings())
            due = pause is not None and time.monotonic() - looked_at >= pause
            try:
                if due:
                    looked_at = time.monotonic()
                for rule in retention.rules(self._settings()):
                    await self._remove_excess(rule)
                    if due:
                        await self._remove_old(rule)
            except ProtocolError as error:
                log.warning("old jobs could not be removed: %s", error.message)
            await asyncio.sleep(BREATH)
            left = None if pause is None else max(0.0, looked_at + pause - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._noticed.wait()
            self._noticed.clear()

    async def remove_strays(self) -> None:
        """Remove logs of jobs that are gone: a daemon that is killed between the two can't have removed both."""
        try:
            for directory in await self._threads.run(log_directories, self._state_dir):
                # In this order: a job that is not there after its log was can only be gone, for no number comes back.
                found = await self._threads.run(logs_in, directory)
                strays = await self._readers.run(functools.partial(_gone, found))
                await self._threads.run(remove_logs, self._state_dir, strays)
        except (OSError, ProtocolError) as error:
            log.warning("logs of jobs that are gone could not be removed: %s", error)

    async def _remove_excess(self, rule: retention.Rule) -> None:
        while excess := rule.excess((await self._readers.run(lambda reader: reader.counts()))[rule.state]):
            size = min(excess, STEP)
            numbers = await self._numbers(rule.state, size, 0)
            if not await self._remove(numbers, rule.state, None):
                return

    async def _remove_old(self, rule: retention.Rule) -> None:
        ended_before = rule.ended_before(self._clock.now())
        after = 0
        while ended_before is not None and (numbers := await self._numbers(rule.state, STEP, after)):
            after = numbers[-1]
            old = await self._readers.run(functools.partial(_older, numbers, ended_before))
            if old:
                await self._remove(old, rule.state, ended_before)

    async def _numbers(self, state: JobState, limit: int, after: int) -> list[int]:
        return await self._readers.run(lambda reader: reader.in_state(state, limit, after))

    async def _remove(self, numbers: Sequence[int], state: JobState, ended_before: float | None) -> int:
        # Looked at again inside the transaction: somebody may have retried one meanwhile.
        deleted = await self._committer.submit(lambda store: remove_ended(store, numbers, state, ended_before))
        failpoints.hit("retention.committed")
        await self._threads.run(remove_logs, self._state_dir, deleted)
        if deleted:
            log.debug("removed old jobs", extra={"state": state.value, "count": len(deleted)})
        return len(deleted)


def _gone(attempts: Mapping[int, int], reader: Reader) -> list[Deleted]:
    return [Deleted(job, last) for job, last in attempts.items() if reader.get(job) is None]


def _older(numbers: Sequence[int], ended_before: float, reader: Reader) -> list[int]:
    records = [record for number in numbers if (record := reader.get(number)) is not None]
    return [record.number for record in records if record.updated_at < ended_before]
