"""Giving waiting jobs to workers."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from queuectl_protocol.jobs import Outcome
from queuectl_protocol.messages import AttemptResult, Lease
from queuectld import failpoints
from queuectld.core import choice, lifecycle, policy
from queuectld.core.choice import Asker, Wait
from queuectld.core.lifecycle import Event
from queuectld.core.settings import Settings
from queuectld.queue.changes import After, Change
from queuectld.queue.settle import Settled, settle
from queuectld.store.base import ReadyJob, Store, UnreadableJob
from queuectld.store.committer import Changed


class Given(Struct, frozen=True):
    """What a look for work has come to."""

    leases: list[Lease]
    """For the first of those who asked; there was no job for the others."""
    unreadable: list[Settled]
    """Jobs that could not be read."""
    due: float | None = None
    """UNIX seconds. The next job becomes ready then; None where it does not matter, or none will."""


def lease(store: Store, workers: Sequence[str], settings: Settings, now: float) -> Changed[Given]:
    """Give the next ready jobs to `workers`, one each, in this order, until there is none; each with a new token.

    A job that can't be read must not block all that wait behind it: it gets an attempt that has failed, and is dead.

    Args:
        store: the store.
        workers: their ids.
        settings: what a lease says of them.
        now: UNIX seconds.
    """
    given, changes = Given([], []), list[Change]()
    while len(given.leases) < len(workers):
        worker = workers[len(given.leases)]
        decision = choice.choose(store.heads, Asker(worker), now)
        if isinstance(decision, Wait):
            return Changed(Given(given.leases, given.unreadable, decision.until), changes)
        try:
            ready = store.runnable(decision.head.job)
        except UnreadableJob as fault:
            given_up = _give_up(store, fault, worker, settings, now)
            given.unreadable.append(given_up.result)
            changes += given_up.changes
            continue
        assert ready is not None, "it waits in this transaction"  # noqa: S101
        attempt, token = ready.last_attempt + 1, secrets.token_hex(8)
        changes.append(_start(store, ready.number, attempt, token, worker, now))
        given.leases.append(_as_lease(ready, attempt, token, settings))
        failpoints.hit("lease.chosen")
    return Changed(given, changes)


def _start(store: Store, number: int, attempt: int, token: str, worker: str, now: float) -> Change:
    before = store.start_attempt(number, attempt, token, worker, now)
    return Change(number, before, After(lifecycle.LEASED[before]), Event.LEASE)


def _give_up(store: Store, fault: UnreadableJob, worker: str, settings: Settings, now: float) -> Changed[Settled]:
    attempt, token = fault.last_attempt + 1, secrets.token_hex(8)
    started = _start(store, fault.number, attempt, token, worker, now)
    running = store.running_attempt(fault.number)
    assert running is not None, "it was started in this transaction"  # noqa: S101
    last = dataclasses.replace(running, job=dataclasses.replace(running.job, max_retries=0))  # it will not get better
    result = AttemptResult(fault.number, attempt, token, Outcome.FAILED, now, error=str(fault))
    settled = settle(store, last, result, settings, now, 0.0)
    return Changed(settled.result, (started, *settled.changes))


def _as_lease(job: ReadyJob, attempt: int, token: str, settings: Settings) -> Lease:
    decided = policy.decide(settings, job=job)
    return Lease(
        job=job.number,
        attempt=attempt,
        token=token,
        id=job.id,
        queue=job.queue,
        max_retries=decided.max_retries,
        timeout=decided.timeout,
        log_max_bytes=decided.log_max_bytes,
        command=job.command,
        argv=job.argv,
        cwd=job.cwd,
        env=job.env,
        exact_env=job.exact_env,
    )


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker that comes again is to be told of its attempt."""

    cancelling: bool
    lease: Lease | None
    """As it was given; None where it can't be read any more."""


def orders(store: Store, number: int, attempt: int, token: str, settings: Settings) -> Orders:
    record, again = store.get(number), None
    with contextlib.suppress(UnreadableJob):
        job = store.runnable(number)
        again = None if job is None else _as_lease(job, attempt, token, settings)
    return Orders(record is not None and record.cancelling, again)
