"""Jobs: asking for them, looking at them, ending them, waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import ENDED, Job, Outcome
from queuectl_protocol.messages import (
    EnqueueParams,
    EnqueueResult,
    JobGetParams,
    JobIdsParams,
    JobListParams,
    JobPage,
    JobSummaries,
    JobSummary,
    JobWaitParams,
)
from queuectld import failpoints
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.queue import change
from queuectld.queue.enqueue import Enqueue
from queuectld.queue.find import find_all, summary, whole
from queuectld.queue.watchers import Ends
from queuectld.store.base import JobRecord


async def enqueue(context: Context, _peer: Peer, params: EnqueueParams) -> EnqueueResult:
    context.refuse_when_stopping()
    context.disk.check()
    failpoints.hit("enqueue.asked")
    now = context.clock.now()
    ids = await context.committer.submit(Enqueue(params.jobs, context.settings, now))
    failpoints.hit("enqueue.committed")
    return EnqueueResult(ids=ids)


async def get(context: Context, _peer: Peer, params: JobGetParams) -> Job:
    return await context.readers.run(
        lambda reader: whole(reader, params.id, env=params.env, attempts_before=params.attempts_before)
    )


async def list_(context: Context, _peer: Peer, params: JobListParams) -> JobPage:
    return await page(context, params)


async def page(context: Context, params: JobListParams) -> JobPage:
    """A page of jobs, for every method that lists some.

    Raises:
        ProtocolError: `invalid_params` for a cursor that did not come from here.
    """
    after = None
    if params.after is not None:
        if not params.after.isascii() or not params.after.isdigit() or int(params.after) >= 2**63:
            raise ProtocolError("invalid_params", "`after` is not a cursor", "give the `next` of the page before")
        after = int(params.after)
    jobs, following = await context.readers.run(
        lambda reader: reader.jobs(params.state, params.queue, params.limit, after)
    )
    return JobPage(jobs=jobs, next=None if following is None else str(following))


async def cancel(context: Context, _peer: Peer, params: JobIdsParams) -> JobSummaries:
    now = context.clock.now()
    cancelled = await context.committer.submit(
        lambda store: change.cancel(store, params.ids, now, tolerant=params.tolerant)
    )
    failpoints.hit("cancel.committed")
    for one in cancelled:
        if one.running is not None:
            context.supervisor.end_attempt(one.job.number, Outcome.CANCELLED)
    return _summaries([one.job for one in cancelled])


async def retry(context: Context, _peer: Peer, params: JobIdsParams) -> JobSummaries:
    context.refuse_when_stopping()
    now = context.clock.now()
    records = await context.committer.submit(
        lambda store: change.retry(store, params.ids, now, tolerant=params.tolerant)
    )
    return _summaries(records)


async def wait(context: Context, _peer: Peer, params: JobWaitParams) -> JobSummaries:
    """Looks at the jobs once. From then on each change is told, and what has ended is remembered.

    A wait may last for days, and be for 10,000 jobs, so it keeps no more of each than its number until it has ended.
    """
    timeout, refs = params.timeout, params.ids
    del params
    records = await context.readers.run(lambda reader: find_all(reader, refs))
    refs = []
    ends = Ends([record.number for record in records])
    context.watchers.subscribe(ends.jobs, ends)
    try:
        _note_ends(ends, records)
        records = []
        async with asyncio.timeout(timeout):
            while True:
                await _look(context, ends)
                if ends.all_ended:
                    break
                context.refuse_when_stopped()
                ends.event.clear()
                await ends.event.wait()
    except TimeoutError:
        pass
    finally:
        context.watchers.unsubscribe(ends.jobs, ends)
    current = await _look(context, ends)  # of those that have not ended, the answer tells the state
    return JobSummaries(jobs=[ended or current[number] for number, ended in ends.jobs.items()])


async def _look(context: Context, ends: Ends) -> dict[int, JobSummary]:
    """Those that have not ended, as they are now, by number. One that has ended and was not told of yet is noted.

    Raises:
        ProtocolError: `not_found` where one was removed before it was seen to end.
    """
    left = [number for number, ended in ends.jobs.items() if ended is None]
    if not left:
        return {}
    found = await context.readers.run(lambda reader: [reader.get(number) for number in left])
    for number, record in zip(left, found, strict=True):
        if record is None and ends.jobs[number] is None:
            raise ProtocolError("not_found", "a job was removed while it was waited for", "it had not been seen to end")
    there = [record for record in found if record is not None]
    _note_ends(ends, there)
    return {record.number: summary(record) for record in there}


def _note_ends(ends: Ends, records: Sequence[JobRecord]) -> None:
    for record in records:
        if record.state in ENDED:
            ends.note(record.number, summary(record))


def _summaries(records: Sequence[JobRecord]) -> JobSummaries:
    return JobSummaries(jobs=[summary(record) for record in records])
