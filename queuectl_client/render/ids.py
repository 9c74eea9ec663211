"""Ids of jobs that were enqueued: the only thing that `enqueue` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def print_ids(ids: Iterable[str], *, as_json: bool) -> None:
    """One a line. An id needs no escapes."""
    sys.stdout.write("".join(f'{{"id":"{job_id}"}}\n' if as_json else f"{job_id}\n" for job_id in ids))
