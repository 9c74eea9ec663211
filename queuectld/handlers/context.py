"""What handlers work with: one object, built by daemon.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from queuectl_protocol.errors import ProtocolError
from queuectld.core.settings import Settings
from queuectld.handlers.log_watches import LogWatches
from queuectld.host.clock import Clock
from queuectld.host.diskspace import DiskSpace
from queuectld.host.listening import Listening
from queuectld.host.threads import Threads
from queuectld.pool.supervisor import Supervisor
from queuectld.queue.sweep import Sweeper
from queuectld.queue.watchers import Watchers
from queuectld.store.base import Maintenance
from queuectld.store.committer import Committer
from queuectld.store.readers import Readers


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while this process lives."""

    pid: int
    started_at: datetime
    generation: int
    state_dir: Path
    containment: str
    most_workers: int
    """As the limit of open files allows."""


@dataclass(slots=True)
class Context:
    """The daemon as its handlers see it.

    Attributes:
        resizing: held from the decision on a new size of the pool until it is stored and carried out, so that two
            requests at once add up.
        settings: those in force; replaced as a whole after a change is committed.
        listening: knows where clients find the daemon at this moment.
        reloads_refused: how often this process was asked to re-execute and did not.
        reload_refusal: why, the last time.
        stopping: a stop was asked for: nothing new is taken.
        stopped: and all attempts have ended: nothing will happen any more that could be waited for.
        ending: and all was answered that could be in time: what is still at work is to give up. Before an exec, too.
    """

    about: About
    committer: Committer
    readers: Readers
    maintenance: Maintenance
    supervisor: Supervisor
    watchers: Watchers
    clock: Clock
    disk: DiskSpace
    sweeper: Sweeper
    log_files: Threads
    log_watches: LogWatches
    background_work: Threads
    settings: Settings
    listening: Listening
    resizing: asyncio.Lock = field(default_factory=asyncio.Lock)
    reloads_refused: int = 0
    reload_refusal: str = ""
    stopping: bool = False
    stopped: bool = False
    ending: bool = False

    def refuse_when_stopped(self) -> None:
        """For who waits: until then, what runs may still end.

        Raises:
            ProtocolError: `shutting_down`.
        """
        if self.stopped:
            self.refuse_when_stopping()

    def refuse_when_stopping(self) -> None:
        """
        Raises:
            ProtocolError: `shutting_down`.
        """
        if self.stopping:
            raise ProtocolError("shutting_down", "the daemon is stopping", "try again when it is back")
