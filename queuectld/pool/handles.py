"""What this process knows of each worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from queuectl_protocol.jobs import WorkerState
from queuectl_protocol.messages import AttemptRef
from queuectld.store.base import RunningAttempt, WorkerRecord

ATTACH_PATIENCE = 30.0
"""Seconds that a new worker has to attach, at least; a loaded machine starts processes slowly."""

REATTACH_PATIENCE = 10.0
"""Seconds that a worker has to come back after a lost connection, at least; it tries once a second."""


class Peer(Protocol):
    """The connection of a worker, as far as it matters here."""

    pid: int
    worker: str | None

    def notify(self, method: str, params: Struct) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Running:
    """An attempt that a worker has."""

    job: int
    job_id: str
    attempt: int
    token: str
    started_at: float

    @property
    def ref(self) -> AttemptRef:
        return AttemptRef(self.job, self.attempt, self.token)


@dataclass(slots=True)
class Handle:
    """One worker process, from its spawn until it and all it started are proven gone."""

    record: WorkerRecord
    pidfd: int
    last_seen: float
    running: Running | None = None
    peer: Peer | None = None
    was_attached: bool = False
    turned_away: bool = False
    """The worker came back when there was no room for its connection. It tries again."""
    attach_answered: bool = False
    """The worker's attach on `peer` was answered. Until then the worker is told nothing: an order that overtakes the
    answer may speak of an attempt that the worker does not know yet. Such orders are repeated after the answer."""
    retiring: bool = False
    """The worker gets no more attempts, and exits."""
    dismissed: bool = False
    """The worker's place in the pool is given up: the worker is not replaced."""
    parked: bool = False
    """The worker is attached, idle, and known to wait for an attempt."""
    offered: bool = False
    """An attempt may be committed to the worker at this moment. The worker must not be told to exit before it is known
    whether one was."""
    vanished: bool = False
    """The process is dead. Its connection may still be there, with messages that were not read yet."""
    ending: bool = False
    """What the worker has left is being ended; nothing that it says counts any more."""
    interrupting: bool = False
    """The attempt that the worker runs, or may be given at this moment, is to be interrupted."""
    stopping_at: float | None = field(default=None)
    """Monotonic seconds. The worker was told to end its attempt for a shutdown. Where it has not done so by then, the
    worker itself is ended."""

    @property
    def patience(self) -> float:
        """Seconds that it may be silent for, however short the heartbeats: it can't send any while not connected."""
        if self.peer is not None:
            return 0.0
        return REATTACH_PATIENCE if self.was_attached else ATTACH_PATIENCE

    @property
    def listener(self) -> Peer | None:
        """Who can be told something now."""
        return self.peer if self.attach_answered else None

    @property
    def state(self) -> WorkerState:
        if self.ending:
            return WorkerState.ENDING
        if self.peer is None:
            return WorkerState.DETACHED if self.was_attached else WorkerState.STARTING
        if self.retiring:
            return WorkerState.STOPPING
        return WorkerState.BUSY if self.running else WorkerState.IDLE


def running_of(attempt: RunningAttempt | None) -> Running | None:
    if attempt is None:
        return None
    return Running(attempt.job.number, attempt.job.id, attempt.number, attempt.token, attempt.started_at)
