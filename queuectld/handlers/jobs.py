"""Jobs: asking for them, looking at them, ending them, waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protocol.errors import ProtocolError
from protocol.jobs import Job, JobSpec, Outcome
from protocol.messages import (
    EnqueueParams,
    EnqueueResult,
    JobGetParams,
    JobIdsParams,
    JobListParams,
    JobPage,
    JobSummaries,
    JobWaitParams,
)
from queuectld import failpoints, operations
from queuectld.context import Context
from queuectld.store.base import JobRecord, Reader, Store
from queuectld.supervisor import Peer


async def enqueue(context: Context, _peer: Peer, params: EnqueueParams) -> EnqueueResult:
    context.refuse_when_stopping()
    context.disk.check()
    settings, now = context.settings, context.clock.now()

    def operation(store: Store) -> list[str]:
        ids = operations.enqueue(store, params.jobs, settings, now)
        failpoints.hit("enqueue.inserted")
        return ids

    failpoints.hit("enqueue.asked")
    ids = await context.committer.submit(operation)
    failpoints.hit("enqueue.committed")
    for run_at in _run_times(params.jobs, now):
        context.supervisor.wake(run_at)
    return EnqueueResult(ids=ids)


def _run_times(specs: Sequence[JobSpec], now: float) -> set[float]:
    """When to look for work: now if anything may run now, and at the first of the delayed ones."""
    times = {now + spec.delay for spec in specs}
    soonest_delayed = min((time for time in times if time > now), default=None)
    return {time for time in times if time <= now} | ({soonest_delayed} if soonest_delayed is not None else set())


async def get(context: Context, _peer: Peer, params: JobGetParams) -> Job:
    def read(reader: Reader) -> Job:
        job = reader.job(operations.find(reader, params.id).number, env=params.env)
        if job is None:
            raise ProtocolError("not_found", f"there is no job {params.id}", "it was removed just now")
        return job

    return await context.readers.run(read)


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
            raise ProtocolError("invalid_params", "`after` is no cursor", "give the `next` of the page before")
        after = int(params.after)
    jobs, following = await context.readers.run(
        lambda reader: reader.jobs(params.state, params.queue, params.limit, after)
    )
    return JobPage(jobs=jobs, next=None if following is None else str(following))


async def cancel(context: Context, _peer: Peer, params: JobIdsParams) -> JobSummaries:
    now = context.clock.now()

    def operation(store: Store) -> list[operations.Cancelled]:
        cancelled = operations.cancel(store, params.ids, now)
        failpoints.hit("cancel.marked")
        return cancelled

    cancelled = await context.committer.submit(operation)
    failpoints.hit("cancel.committed")
    for one in cancelled:
        context.watchers.changed(one.job.number)
        context.retention.notice()
        if one.running is not None:
            context.supervisor.end_attempt(one.job.number, Outcome.CANCELLED)
    return _summaries([one.job for one in cancelled])


async def retry(context: Context, _peer: Peer, params: JobIdsParams) -> JobSummaries:
    context.refuse_when_stopping()
    now = context.clock.now()
    records = await context.committer.submit(lambda store: operations.retry(store, params.ids, now))
    for record in records:
        context.watchers.changed(record.number)
    context.supervisor.wake()
    return _summaries(records)


async def wait(context: Context, _peer: Peer, params: JobWaitParams) -> JobSummaries:
    records = await context.readers.run(lambda reader: operations.find_all(reader, params.ids))
    numbers = [record.number for record in records]
    changed = context.watchers.subscribe(numbers)
    try:
        async with asyncio.timeout(params.timeout):
            while True:
                changed.clear()
                current = await context.readers.run(lambda reader: [reader.get(number) for number in numbers])
                records = [_still_there(then, now) for then, now in zip(records, current, strict=True)]
                if all(operations.is_ended(record.state) for record in records):
                    break
                context.refuse_when_stopped()
                await changed.wait()
    except TimeoutError:
        pass  # the answer tells what the states are
    finally:
        context.watchers.unsubscribe(numbers, changed)
    return _summaries(records)


def _still_there(then: JobRecord, now: JobRecord | None) -> JobRecord:
    if now is None:
        raise ProtocolError("not_found", f"job {then.id} was removed while it was waited for")
    return now


def _summaries(records: Sequence[JobRecord]) -> JobSummaries:
    return JobSummaries(jobs=[operations.summary(record) for record in records])
