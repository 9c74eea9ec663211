"""The dead letter queue."""

from __future__ import annotations

from queuectl_protocol.jobs import JobState
from queuectl_protocol.messages import (
    CountResult,
    DlqListParams,
    DlqPurgeParams,
    DlqRetryParams,
    JobListParams,
    JobPage,
)
from queuectld import failpoints
from queuectld.attempt_files.log_reading import remove_logs
from queuectld.handlers import jobs
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.queue import change, remove
from queuectld.store.base import Deleted, JobRecord

STEP = 500
"""Jobs of one transaction, so that `all` of a million does not hold up everybody else."""


async def list_(context: Context, _peer: Peer, params: DlqListParams) -> JobPage:
    return await jobs.page(
        context, JobListParams(state=JobState.DEAD, queue=params.queue, limit=params.limit, after=params.after)
    )


async def retry(context: Context, _peer: Peer, params: DlqRetryParams) -> CountResult:
    context.refuse_when_stopping()
    if params.ids is not None:
        ids, now = params.ids, context.clock.now()
        retried = await context.committer.submit(lambda store: change.retry_dead(store, ids, now))
        count = len(retried)
    else:
        count = after = 0
        while retried := await _retry_step(context, after):
            # Upwards only: a job that dies again meanwhile is not retried a second time by this request.
            count += len(retried)
            after = retried[-1].number
    return CountResult(count=count)


async def _retry_step(context: Context, after: int) -> list[JobRecord]:
    now = context.clock.now()
    return await context.committer.submit(lambda store: change.retry_some_dead(store, STEP, after, now))


async def purge(context: Context, _peer: Peer, params: DlqPurgeParams) -> CountResult:
    count = 0
    if params.ids is not None:
        ids = params.ids
        count = await _purged(context, await context.committer.submit(lambda store: remove.purge(store, ids)))
    else:
        while deleted := await context.committer.submit(lambda store: remove.purge_some(store, STEP)):
            count += await _purged(context, deleted)
    return CountResult(count=count)


async def _purged(context: Context, deleted: list[Deleted]) -> int:
    failpoints.hit("purge.committed")
    await context.background_work.run(remove_logs, context.about.state_dir, deleted)
    return len(deleted)
