"""The methods: parse, call, reply. HANDLERS is checked against protocol.messages.METHODS by a test and at start-up.

Imported by daemon.py only. They touch nothing themselves: `queue`, `pool` and the readers do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from queuectld.handlers import config, dlq, jobs, logs, status, workers

HANDLERS: dict[str, Callable[[Any, Any, Any], Awaitable[Struct | None]]] = {
    "server.info": status.info,
    "server.backup": status.backup,
    "job.enqueue": jobs.enqueue,
    "job.get": jobs.get,
    "job.list": jobs.list_,
    "job.cancel": jobs.cancel,
    "job.retry": jobs.retry,
    "job.wait": jobs.wait,
    "job.logs": logs.read,
    "dlq.list": dlq.list_,
    "dlq.retry": dlq.retry,
    "dlq.purge": dlq.purge,
    "config.list": config.list_,
    "config.get": config.get,
    "config.set": config.set_,
    "config.unset": config.unset,
    "worker.list": workers.list_,
    "worker.start": workers.start,
    "worker.stop": workers.stop,
    "worker.attach": workers.attach,
    "worker.finish": workers.finish,
    "worker.heartbeat": workers.heartbeat,
    "status.get": status.get,
}
