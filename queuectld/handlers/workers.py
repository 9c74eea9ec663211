"""The workers: what people ask of the pool, and what workers say."""

from __future__ import annotations

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.messages import (
    MAX_WORKERS,
    AttachParams,
    AttachResult,
    FinishParams,
    FinishResult,
    NoParams,
    WorkerListResult,
    WorkerStartParams,
    WorkerStartResult,
    WorkerStopParams,
    WorkerStopResult,
)
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.queue import configure


async def list_(context: Context, _peer: Peer, _params: NoParams) -> WorkerListResult:
    return WorkerListResult(workers=context.supervisor.workers(), desired=context.supervisor.desired)


async def start(context: Context, _peer: Peer, params: WorkerStartParams) -> WorkerStartResult:
    context.refuse_when_stopping()
    async with context.resizing:
        desired = context.supervisor.desired + params.count
        if desired > MAX_WORKERS:
            raise ProtocolError("invalid_params", f"`count`: there can be {MAX_WORKERS} workers, not {desired}")
        most = context.about.most_workers
        if desired > most:
            raise ProtocolError(
                "invalid_params",
                f"`count`: the daemon's limit of open files leaves room for {most} workers, not {desired}",
                "raise it (LimitNOFILE= of the unit, `ulimit -n`) and start the daemon again",
            )
        await _store_size(context, desired)
        ids = context.supervisor.set_desired(desired)
    return WorkerStartResult(ids=ids, desired=desired)


async def stop(context: Context, _peer: Peer, params: WorkerStopParams) -> WorkerStopResult:
    async with context.resizing:
        stop = context.supervisor.plan_stop(params.ids)
        await _store_size(context, stop.desired)
        context.supervisor.carry_out(stop, now=params.now)
    return WorkerStopResult(ids=stop.counted, desired=stop.desired)


async def _store_size(context: Context, desired: int) -> None:
    """Before anything is done: what can't be stored is refused, and then nothing may have changed."""
    await context.committer.submit(lambda store: configure.resize(store, desired))


async def attach(context: Context, peer: Peer, params: AttachParams) -> AttachResult:
    return await context.supervisor.attach(peer, params)


async def finish(context: Context, peer: Peer, params: FinishParams) -> FinishResult:
    return await context.supervisor.finish(peer, params.ended)


async def heartbeat(context: Context, peer: Peer, _params: NoParams) -> None:
    context.supervisor.heartbeat(peer)
