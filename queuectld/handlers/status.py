"""The daemon itself, and everything at a glance."""

from __future__ import annotations

from protocol.messages import DaemonStatus, NoParams, ServerInfo, StatusResult
from protocol.version import PROTOCOL, __version__
from queuectld.context import Context
from queuectld.supervisor import Peer


async def info(context: Context, _peer: Peer, _params: NoParams) -> ServerInfo:
    about = context.about
    return ServerInfo(
        version=__version__,
        protocol=PROTOCOL,
        pid=about.pid,
        started_at=about.started_at,
        generation=about.generation,
        state_dir=str(about.state_dir),
        socket=str(about.socket),
        containment=about.containment,
        stopping=context.stopping,
    )


async def get(context: Context, _peer: Peer, _params: NoParams) -> StatusResult:
    about = context.about
    counts = await context.readers.run(lambda reader: reader.counts())
    return StatusResult(
        counts=counts,
        workers=context.supervisor.workers(),
        daemon=DaemonStatus(
            version=__version__,
            pid=about.pid,
            started_at=about.started_at,
            state_dir=str(about.state_dir),
            socket=str(about.socket),
            containment=about.containment,
            desired_workers=context.supervisor.desired,
            stopping=context.stopping,
        ),
    )
