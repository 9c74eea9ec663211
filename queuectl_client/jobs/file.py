"""A file of jobs, one JSON object a line, read in batches."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from queuectl_client.errors import BadRequest
from queuectl_client.jobs import specs
from queuectl_client.jobs.batches import BATCH_BYTES, BATCH_JOBS
from queuectl_protocol.jobs import JobSpec
from queuectl_protocol.lines import Lines

CHUNK = 256 * 1024
ID_BYTES = 24
"""What an id of our own adds to a line, as JSON."""


class JobFile:
    """Jobs read from a descriptor, in batches."""

    def __init__(self, descriptor: int, defaults: Mapping[str, Any]) -> None:
        self._descriptor = descriptor
        self._read = specs.reader(defaults)
        # By so much can a job be longer on the wire than in the file.
        given = {key: value for key, value in defaults.items() if value is not None}
        self._extra = ID_BYTES + (len(msgspec.json.encode(given)) if given else 0)
        self.line = 0
        """Number of the line that was read last, from 1."""
        self.ends: list[tuple[int, int]] = []
        """Of each batch: its last line, and how many bytes were read until there."""
        self._size = 0

    def batches(self) -> Iterator[list[JobSpec]]:
        """Batches of jobs; an empty one says that nothing more is there to read at the moment.

        Raises:
            BadRequest: a line is no job. All jobs of the lines before it were yielded.
        """
        lines = Lines()
        batch: list[JobSpec] = []
        length = 0
        while True:
            if not select.select([self._descriptor], [], [], 0)[0]:
                # A pipe that is fed slowly: what is there must not wait for what is not.
                if batch:
                    yield self._ended(batch)
                    batch, length = [], 0
                yield []
            data = os.read(self._descriptor, CHUNK)
            for line in lines.feed(data) if data else [lines.rest]:
                self.line += 1
                size = 1 if line is None else len(line) + 1
                self._size += size
                if line is not None and (not line or line.isspace()):
                    continue
                try:
                    job = self._job(line)
                except BadRequest as error:
                    if batch:
                        yield self._ended(batch, self.line - 1)
                    raise BadRequest(f"line {self.line}: {error.message}", error.hint) from None
                size += self._extra
                if batch and (len(batch) == BATCH_JOBS or length + size > BATCH_BYTES):
                    yield self._ended(batch, self.line - 1)
                    batch, length = [], 0
                batch.append(job)
                length += size
            if not data:
                break
        if batch:
            yield self._ended(batch)

    def _job(self, line: bytes | None) -> JobSpec:
        if line is None:
            raise BadRequest("longer than 1 MiB")
        return self._read(line)

    def _ended(self, batch: list[JobSpec], line: int | None = None) -> list[JobSpec]:
        self.ends.append((self.line if line is None else line, self._size))
        return batch
