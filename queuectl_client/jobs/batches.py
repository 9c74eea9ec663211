"""Very many jobs, cut into requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from queuectl_client.jobs.specs import with_id
from queuectl_protocol.jobs import JobSpec

BATCH_JOBS = 500
BATCH_BYTES = 512 * 1024
"""A batch is one request and one commit; it stays well below the longest line."""


def batches(jobs: Iterable[JobSpec]) -> Iterator[list[JobSpec]]:
    """Cut a stream of jobs into batches that are neither too many nor too long."""
    encoder = msgspec.json.Encoder()
    batch: list[JobSpec] = []
    size = 0
    for job in jobs:
        length = len(encoder.encode(with_id(job))) + 1
        if batch and (len(batch) == BATCH_JOBS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += length
    if batch:
        yield batch
