"""The client side of queuectl: the `queuectl` command, and all that a Python program needs to use the queue.

from queuectl_client import Client

with Client() as client:
    job = client.enqueue(command="make test", timeout=600)
    print(client.wait([job]))
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import Any

    from queuectl_client.client import Client
    from queuectl_client.errors import BadRequest, ClientError, NoDaemon, OutcomeUnknown, WrongProtocol
    from queuectl_client.wire.bulk import Enqueuing
    from queuectl_protocol.errors import ProtocolError
    from queuectl_protocol.jobs import ENDED, WAITING, Attempt, Job, JobSpec, JobState, Outcome, Worker, WorkerState
    from queuectl_protocol.messages import (
        BackupResult,
        DaemonStatus,
        JobLogs,
        JobSummary,
        ServerInfo,
        Setting,
        StatusResult,
        WorkerListResult,
        WorkerStartResult,
        WorkerStopResult,
    )

__all__ = [
    "ENDED",
    "WAITING",
    "Attempt",
    "BackupResult",
    "BadRequest",
    "Client",
    "ClientError",
    "DaemonStatus",
    "Enqueuing",
    "Job",
    "JobLogs",
    "JobSpec",
    "JobState",
    "JobSummary",
    "NoDaemon",
    "Outcome",
    "OutcomeUnknown",
    "ProtocolError",
    "ServerInfo",
    "Setting",
    "StatusResult",
    "Worker",
    "WorkerListResult",
    "WorkerStartResult",
    "WorkerState",
    "WorkerStopResult",
    "WrongProtocol",
]

_MODULES = (
    "queuectl_client.errors",
    "queuectl_client.client",
    "queuectl_client.wire.bulk",
    "queuectl_protocol.errors",
    "queuectl_protocol.jobs",
    "queuectl_protocol.messages",
)


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and `queuectl --help` need not pay for the wire.
    if name in __all__:
        from importlib import import_module  # noqa: PLC0415 - as above

        for module in map(import_module, _MODULES):
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
