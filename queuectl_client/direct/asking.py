"""As much of a `Client` as the direct way needs, without msgspec: its answers are `plain.Fields`."""

from __future__ import annotations

from queuectl_client.wire import plain
from queuectl_client.wire.link import PATIENCE, Link, time_left
from queuectl_client.wire.plain import Fields, UnclearError

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any


class Asking:
    """Methods with the meaning of those of `Client`. All of the requests may be sent again, as METHODS says."""

    def __init__(self, socket: str | None) -> None:
        """Nothing is opened yet."""
        self._link = Link(socket, plain, patience=PATIENCE, timeout=None)

    def enqueue(self, fields: dict[str, Any]) -> list[str]:
        ids: list[str] = self._ask("job.enqueue", lambda: {"jobs": [fields]}).ids
        return ids

    def status(self) -> Fields:
        return self._ask("status.get", dict)

    def workers(self) -> Fields:
        return self._ask("worker.list", dict)

    def wait(self, jobs: Sequence[str], *, timeout: float | None = None) -> Sequence[Fields]:
        left = time_left(timeout)
        return self._jobs("job.wait", lambda: {"ids": list(jobs), "timeout": left()}, patient=True)

    def cancel(self, jobs: Sequence[str], *, tolerant: bool = False) -> Sequence[Fields]:
        return self._jobs("job.cancel", lambda: {"ids": list(jobs), "tolerant": tolerant})

    def list(self, state: str | None, *, queue: str | None, limit: int) -> Iterator[Fields]:
        """A page.

        Raises:
            UnclearError: it is not all that was asked for.
        """
        page = self._ask("job.list", lambda: {"state": state, "queue": queue, "limit": limit})
        if page.next is not None and len(page.jobs) < limit:
            raise UnclearError
        return iter(page.jobs)

    def _jobs(
        self, method: str, make_params: Callable[[], dict[str, Any]], *, patient: bool = False
    ) -> Sequence[Fields]:
        jobs: Sequence[Fields] = self._ask(method, make_params, patient=patient).jobs
        return jobs

    def _ask(self, method: str, make_params: Callable[[], dict[str, Any]], *, patient: bool = False) -> Fields:
        return plain.result_of(self._link.ask(method, make_params, repeatable=True, patient=patient))
