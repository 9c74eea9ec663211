"""Ids of jobs that were enqueued: the only thing that `enqueue` prints."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Iterable


def print_ids(ids: Iterable[str], *, as_json: bool) -> None:
    """One a line. An id needs no escapes."""
    sys.stdout.write("".join(f'{{"id":"{job_id}"}}\n' if as_json else f"{job_id}\n" for job_id in ids))
