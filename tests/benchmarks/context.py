"""What all topics share: sizes, a directory, the findings so far, the prepared databases."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from queuectl_protocol.ids import Ids
from queuectld.store.base import NewJob
from queuectld.store.sqlite import open_store
from tests.benchmarks.figures import Findings, say
from tests.benchmarks.ours import COMMAND
from tests.benchmarks.peers.base import Peer
from tests.benchmarks.sizes import Sizes

BATCH = 10_000

_ids = Ids()


@dataclass(slots=True)
class Context:
    """Handed to each topic.

    Attributes:
        directory: temporary, on a real disk; gone after the run.
        workers: the best count for this machine, once `drain` has found it out.
        peers: those that are there.
    """

    sizes: Sizes
    directory: Path
    findings: Findings
    peers: list[Peer] = field(default_factory=list)
    workers: int = 4
    _databases: dict[tuple[int, int], Path] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def fresh(self, name: str) -> Path:
        """A path below the directory that is not there yet."""
        return self.directory / f"{name}-{next(self._names)}"

    def database(self, jobs: int, queues: int = 1) -> Path:
        """A database with so many jobs waiting; made at the first call, to be copied."""
        key = (jobs, queues)
        if key not in self._databases:
            path = self.fresh("database") / "queue.db"
            path.parent.mkdir(mode=0o700)
            begin = time.monotonic()
            _fill(path, jobs, queues)
            say(f"(prepared {jobs:,} jobs in {queues} queues in {time.monotonic() - begin:.0f} s)")
            self._databases[key] = path
        return self._databases[key]


def _fill(path: Path, jobs: int, queues: int) -> None:
    """Through the store itself: the rows are those that `queuectl enqueue` would have made."""
    store = open_store(path)
    now = time.time() - 60
    for first in range(0, jobs, BATCH):
        store.begin()
        store.insert([new_job(now, f"q{place % queues}") for place in range(first, min(first + BATCH, jobs))], now)
        store.commit()
    store.close()


def new_job(now: float, queue: str = "default") -> NewJob:
    """As the daemon makes it of `{"command": "true"}`."""
    return NewJob(
        id=_ids.make(),
        digest=secrets.token_bytes(16),
        queue=queue,
        priority=0,
        run_at=now,
        max_retries=3,
        timeout=0.0,
        label="",
        command=COMMAND,
        argv=None,
        cwd=None,
        env=None,
        exact_env=False,
    )
