"""The daemon itself, and everything at a glance."""

from __future__ import annotations

from pathlib import Path

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.messages import BackupParams, BackupResult, DaemonStatus, NoParams, ServerInfo, StatusResult
from queuectl_protocol.version import PROTOCOL, __version__
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.store.base import (
    AlreadyThere,
    GivenUp,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageUnavailable,
)


async def info(context: Context, _peer: Peer, _params: NoParams) -> ServerInfo:
    about = context.about
    return ServerInfo(
        version=__version__,
        protocol=PROTOCOL,
        pid=about.pid,
        started_at=about.started_at,
        generation=about.generation,
        state_dir=str(about.state_dir),
        socket=str(context.listening.address),
        containment=about.containment,
        stopping=context.stopping,
        reloads_refused=context.reloads_refused,
        reload_refusal=context.reload_refusal,
    )


async def backup(context: Context, _peer: Peer, params: BackupParams) -> BackupResult:
    path = Path(params.path)
    try:
        size = await context.background_work.run(context.maintenance.backup, path, lambda: context.ending)
    except GivenUp:
        raise ProtocolError("shutting_down", "the daemon is stopping", "try again when it is back") from None
    except AlreadyThere as error:
        # As the daemon's user, who could be asked to write over any file of its own otherwise.
        raise ProtocolError("conflict", str(error), "name a new file") from None
    except StorageFull as error:
        raise ProtocolError("storage_full", str(error), "name a file on another disk") from None
    except StorageBusy as error:
        raise ProtocolError("busy", str(error), "try again when the other program is done") from None
    except StorageUnavailable as error:
        raise ProtocolError("unavailable", str(error), "try again later") from None
    except StorageError as error:
        raise ProtocolError("invalid_params", str(error), "name a file that the daemon's user can write") from None
    return BackupResult(path=str(path), bytes=size)


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
            socket=str(context.listening.address),
            containment=about.containment,
            desired_workers=context.supervisor.desired,
            stopping=context.stopping,
        ),
    )
