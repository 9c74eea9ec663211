"""An attempt has ended, and its worker asks for the next one: one transaction for both."""

from __future__ import annotations

from queuectl_protocol.messages import AttemptResult
from queuectld import failpoints
from queuectld.core.settings import Settings
from queuectld.queue.lease import Given, lease
from queuectld.queue.settle import Settled, running_under, settle
from queuectld.store.base import Store
from queuectld.store.committer import Changed


def finish(
    store: Store, worker: str, result: AttemptResult, settings: Settings, now: float, chance: float, *, more: bool
) -> Changed[tuple[Settled, Given]]:
    """Record an attempt's outcome and what follows from it; with `more`, give the worker another job.

    Raises:
        ProtocolError: `conflict` where the attempt is not (any more) this worker's running one: the fence.
    """
    settled = settle(store, running_under(store, worker, result), result, settings, now, chance)
    given = lease(store, [worker] if more else [], settings, now)
    failpoints.hit("finish.settled")
    return Changed((settled.result, given.result), [*settled.changes, *given.changes])
