"""Without workers nothing runs, and nothing else would say so to whoever asks for work or waits for it."""

from __future__ import annotations

from queuectl_client.render.remarks import remark
from queuectl_protocol.states import WAITING

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from queuectl_protocol.messages import JobSummary, WorkerListResult

    class Asked(Protocol):
        """The part of a `Client` that is asked here."""

        def workers(self) -> WorkerListResult: ...

        def wait(self, jobs: Sequence[str], *, timeout: float | None = None) -> Sequence[JobSummary]: ...


START = "start some with `queuectl worker start --count 2`"


def say_if_none(client: Asked, what: str) -> bool:
    """Where there are no workers, nor are to be: say `what` to people, and how to start some.

    Returns:
        Whether it was said.
    """
    if client.workers().desired:
        return False
    remark(what, START)
    return True


def say_if_waiting(client: Asked, jobs: Sequence[str]) -> None:
    """Where there are no workers: say which of the jobs, ids or prefixes, wait for one."""
    if client.workers().desired:
        return
    waiting = [job.id for job in client.wait(jobs, timeout=0) if job.state in WAITING]
    if waiting:
        which = f"job {waiting[0]} waits" if len(waiting) == 1 else f"{len(waiting)} jobs wait"
        remark(f"{which}, and no worker runs", START)
