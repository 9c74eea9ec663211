"""The end of an attempt, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from queuectl_protocol.errors import ProtocolError, cut
from queuectl_protocol.jobs import ENDED, WAITING, JobState, Outcome
from queuectl_protocol.messages import AttemptResult, JobSummary
from queuectld import failpoints
from queuectld.core import lifecycle, policy
from queuectld.core.settings import Settings
from queuectld.queue.changes import After, Change, all_of
from queuectld.store.base import RunningAttempt, Store
from queuectld.store.committer import Changed


class Settled(Struct, frozen=True):
    """What became of a job whose attempt has ended."""

    id: str
    state: JobState


def running_under(store: Store, worker: str, result: AttemptResult) -> RunningAttempt:
    """The running attempt that `result` is of.

    Raises:
        ProtocolError: `conflict` where the attempt is not (any more) this worker's running one: the fence.
    """
    running = store.running_attempt(result.job)
    if running is None or (running.number, running.token, running.worker) != (result.attempt, result.token, worker):
        raise ProtocolError("conflict", f"attempt {result.attempt} of job {result.job} is not running under this lease")
    return running


def settle(
    store: Store, running: RunningAttempt, result: AttemptResult, settings: Settings, now: float, chance: float
) -> Changed[Settled]:
    """Record the outcome of an attempt that is known to be the running one, and what follows from it."""
    job = running.job
    error = None if result.error is None else cut(result.error)
    if result.unasked:  # said of an interruption that counts, and of no other
        error = "its worker got a signal to end"
    decision = lifecycle.settle(
        lifecycle.Running(job.id, job.attempts, job.cancelling, job.run_at),
        result.outcome,
        policy.decide(settings, job=policy.Said(job.max_retries)),
        now,
        chance,
        asked_for=not result.unasked,
    )
    store.end_attempt(
        job.number,
        running.number,
        outcome=decision.outcome,
        exit_code=result.exit_code,
        signal=result.signal,
        error=error,
        state=decision.state,
        attempts=decision.attempts,
        run_at=decision.run_at,
        # By the daemon's clock: an attempt must not end before it began, whatever a clock did meanwhile.
        ended_at=max(running.started_at, min(result.ended_at, now)),
        now=now,
    )
    after = After(decision.state)
    if decision.state in WAITING:
        after = After(decision.state, decision.run_at)
    elif decision.state in ENDED:
        after = After(decision.state, None, JobSummary(job.id, decision.state, result.exit_code, error))
    return Changed(Settled(job.id, decision.state), (Change(job.number, job.state, after, decision.event),))


def attempts_of(store: Store, worker: str) -> list[tuple[int, int]]:
    """What a worker runs: job and number of each attempt."""
    return [(running.job.number, running.number) for running in store.running() if running.worker == worker]


def settle_worker(
    store: Store,
    worker: str,
    outcome: Outcome,
    records: Mapping[tuple[int, int], AttemptResult],
    settings: Settings,
    now: float,
    chance: float,
) -> Changed[list[Settled]]:
    """Settle what a worker that is proven gone was running: by its exit record, else as `outcome`; forget the worker.

    Args:
        store: the store.
        worker: its id.
        outcome: LOST, or INTERRUPTED where this daemon ended it for a shutdown.
        records: exit records, by job and attempt; read before, because a transaction waits for no file.
        settings: those in force.
        now: UNIX seconds.
        chance: random, 0 to 1.
    """
    settled = []
    for running in store.running():
        if running.worker == worker:
            result = records.get((running.job.number, running.number))
            if result is None or result.token != running.token:
                error = "worker lost" if outcome is Outcome.LOST else None
                result = AttemptResult(running.job.number, running.number, running.token, outcome, now, error=error)
            settled.append(settle(store, running, result, settings, now, chance))
    store.remove_worker(worker)
    failpoints.hit("lost.settled")
    return all_of(settled)
