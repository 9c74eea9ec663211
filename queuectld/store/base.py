"""What the daemon asks of a store. No SQL, no driver's type and no driver's error passes through here.

The interface is synchronous. One thread owns the Store (the writing side, see committer.py); any number of Readers look
at what is committed, each owned by one thread at a time. Ids and times (UNIX seconds) are plain values, `now` is handed
in. Decisions are not made here: a store does what it is told. Told what can't be done (an attempt of a job that is not
waiting, the end of one that is not running, a change of a job that is not there), it raises LookupError: the caller's
fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from queuectl_protocol.jobs import Attempt, Job, JobState, Outcome
from queuectld.store.heads import Heads


class StorageError(Exception):
    """Something about the storage is wrong; the message is for a person."""


class NothingChanged(StorageError):  # noqa: N818 - named after what happened
    """The whole transaction was rolled back; nothing was changed, and the next one may succeed."""


class StorageFull(NothingChanged):
    """No room. Any write can raise it, and the commit."""


class StorageBusy(NothingChanged):
    """Another program kept the store locked, for longer than its driver waits. Mostly `begin` raises it."""


class StorageUnavailable(NothingChanged):
    """The store can't be reached now: its server is restarted, or out of reach. Later it may be."""


class StorageFailed(StorageError):  # noqa: N818 - as above
    """An I/O error. The transaction was rolled back; but if the commit raised it, what is on disk is unknown."""


class StorageUnusable(StorageError):  # noqa: N818 - as above
    """The store can't be opened: corrupt, newer than this program, not readable ... The file was not touched."""


class GivenUp(StorageError):  # noqa: N818 - as above
    """What was long to do was given up, because its caller said so."""


class OutOfTime(StorageError):  # noqa: N818 - as above
    """What was long to do was not done to its end in the time it had."""


class AlreadyThere(StorageError):  # noqa: N818 - as above
    """The name for a new file is taken."""


def _never() -> bool:
    return False


class UnreadableJob(Exception):  # noqa: N818 - as above
    """What is stored of a job is not what can have been enqueued; it can't be run. Others can.

    Attributes:
        number: of the job.
        id: of the job, as far as it can be read.
        attempts: counted ones.
        last_attempt: number of its newest attempt.
    """

    def __init__(self, number: int, job_id: str, attempts: int, last_attempt: int, why: str) -> None:
        super().__init__(f"what the database has of this job can't be read: {why}")
        self.number = number
        self.id = job_id
        self.attempts = attempts
        self.last_attempt = last_attempt


class NewJob(Struct, frozen=True):
    """A job to be inserted, every default filled in."""

    id: str
    digest: bytes
    """Of the spec as it was asked for: the same id with the same digest is the same job (see core.repeats)."""
    queue: str
    priority: int
    run_at: float
    max_retries: int
    timeout: float
    label: str
    command: str | None
    argv: list[str] | None
    cwd: str | None
    env: dict[str, str] | None
    exact_env: bool


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of jobs that were to be inserted."""

    numbers: Sequence[int | None]
    """Of each job; None where its id was there, or came earlier among them."""
    contradicted: dict[str, bytes]
    """The ids that are there, or come twice, with another digest than the job's; each with the digest that is there."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What decisions about a job need of it."""

    number: int
    """Internal, never used again for another job."""
    id: str
    state: JobState
    attempts: int
    """Counted ones."""
    max_retries: int
    run_at: float
    cancelling: bool
    exit_code: int | None
    error: str | None
    updated_at: float
    """Of an ended job: when it ended."""


class ReadyJob(Struct, frozen=True):
    """A job that may run now, and what a worker needs to run it."""

    number: int
    id: str
    queue: str
    attempts: int
    max_retries: int
    timeout: float
    last_attempt: int
    """Number of its newest attempt, counted or not; 0 if there was none."""
    command: str | None
    argv: list[str] | None
    cwd: str | None
    env: dict[str, str] | None
    exact_env: bool


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that was started and whose end is not recorded."""

    job: JobRecord
    number: int
    token: str
    worker: str
    started_at: float


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker process that was spawned and whose end is not recorded.

    (boot_id, pid, start_ticks) names one process for ever.
    """

    id: str
    boot_id: str
    pid: int
    start_ticks: int
    """`starttime` of proc(5), clock ticks since boot."""
    started_at: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """A job that was deleted, so that its logs can follow: attempts 1 to `last_attempt` may have one."""

    number: int
    last_attempt: int


MOST_ATTEMPTS = 1000
"""Of one job that are told at once."""


class Reader(Protocol):
    """Reads of what is committed (on a Store: also of what its open transaction has changed)."""

    def resolve(self, ref: str) -> list[tuple[int, str]]:
        """(number, id) of the job whose id is `ref`; if there is none, of the first 3 whose id begins so, by id."""

    def get(self, number: int) -> JobRecord | None: ...

    def job(self, number: int, *, env: bool = False, attempts_before: int | None = None) -> Job | None:
        """As the wire tells it, with `attempts`, and where `env` is asked for, its environment."""

    def attempts(self, number: int, most: int = MOST_ATTEMPTS, before: int | None = None) -> list[Attempt]:
        """The newest `most` of those with a number below `before`, or fewer where they are large; the oldest of them
        first. Empty for an unknown job.
        """

    def jobs(
        self, state: JobState | None, queue: str | None, limit: int, after: int | None
    ) -> tuple[list[Job], int | None]:
        """A page, newest first: jobs with a number below `after`, and the `after` of the next page (None: no more)."""

    def counts(self) -> dict[JobState, int]:
        """Of every state, 0 included; kept as they change, not counted."""

    def in_state(self, state: JobState, limit: int, after: int = 0) -> list[int]:
        """Numbers of jobs in `state` above `after`, ascending."""

    def settings(self) -> dict[str, int | float]:
        """Those that were set."""

    def identity(self) -> str:
        """32 hexadecimal digits that were drawn when the store was made. A backup has the same ones."""

    def desired_workers(self) -> int: ...

    def workers(self) -> list[WorkerRecord]:
        """The oldest first."""

    def running(self) -> list[RunningAttempt]:
        """All, by job number."""

    def close(self) -> None: ...


class Maintenance(Protocol):
    """What reads the whole store. Any thread may call it: each call has a view of its own of what is committed."""

    def backup(self, path: Path, give_up: Callable[[], bool] = _never) -> int:
        """Write a whole copy of what is committed to `path`, a new file; how many bytes it has.

        `path` is there only when the copy is whole and on disk.

        Raises:
            GivenUp: `give_up`, asked again and again meanwhile, said so; there is no copy then.
            AlreadyThere: `path`, which is left as it is.
            StorageFull: no room for the copy.
            StorageError: it can't be written there; the message says why.
        """

    def integrity_check(self, patience: float = 60.0, give_up: Callable[[], bool] = _never) -> list[str]:
        """What is damaged, a sentence each, at most 20; empty if the store is whole.

        Reads all of it: seconds for a million jobs.

        Raises:
            OutOfTime: `patience` seconds were not enough. Nothing is known then: a part that was read says nothing.
            StorageBusy: it can't be read at the moment.
            GivenUp: `give_up`, asked again and again meanwhile, said so.
        """


class Store(Reader, Protocol):
    """The writing side. All writes happen between `begin` and `commit` or `rollback`."""

    def begin(self) -> None: ...

    def mark(self) -> None:
        """Begin a part of the transaction that can fail by itself; parts do not nest."""

    def keep(self) -> None:
        """End the part, keeping its changes."""

    def undo(self) -> None:
        """End the part, undoing its changes. After a StorageError nothing is left to undo, and nothing is done."""

    def commit(self) -> None:
        """Returns when everything is on disk.

        Raises:
            StorageFull: rolled back.
            StorageFailed: unknown; the store must not be used any more.
        """

    def rollback(self) -> None:
        """Undo all since `begin`. After a StorageError nothing is left to undo, and nothing is done."""

    def reader(self) -> Reader:
        """A new one, for use by another thread."""

    @property
    def maintenance(self) -> Maintenance: ...

    # jobs

    def insert(self, jobs: Sequence[NewJob], now: float) -> Inserted:
        """Insert the jobs in the state of new ones, in this order. A job whose id is there is passed over.

        Where ids are contradicted the caller undoes, unless it finds that they are the same jobs all the same.
        """

    @property
    def heads(self) -> Heads:
        """The first waiting jobs, for core.choice. They are of what the open transaction has changed, too."""

    def runnable(self, number: int) -> ReadyJob | None:
        """What a worker needs to run this job, whatever its state; None for an unknown job.

        Raises:
            UnreadableJob: it can't be run.
        """

    def start_attempt(self, number: int, attempt: int, token: str, worker: str, now: float) -> JobState:
        """The job's state is moved by a lease, its attempts count one up, and the attempt is recorded as running.

        Returns:
            The job's state before.
        """

    def running_attempt(self, number: int) -> RunningAttempt | None:
        """The running attempt of a job that is `processing`."""

    def end_attempt(
        self,
        number: int,
        attempt: int,
        *,
        outcome: Outcome,
        exit_code: int | None,
        signal: int | None,
        error: str | None,
        state: JobState,
        attempts: int,
        run_at: float,
        ended_at: float,
        now: float,
    ) -> None:
        """Record the attempt's end, and what becomes of its job.

        The job takes `state`, `attempts` (counted), `run_at`, `exit_code` and `error`; it is no longer `cancelling`.
        """

    def update(
        self, number: int, *, state: JobState, attempts: int, run_at: float, cancelling: bool, now: float
    ) -> None:
        """Change a job outside of an attempt's end (cancel, retry)."""

    def delete(self, numbers: Sequence[int]) -> list[Deleted]:
        """Delete jobs with their attempts, and environments that nobody uses any more; unknown ones are passed over."""

    # settings, workers

    def set_setting(self, key: str, value: float) -> None: ...

    def unset_setting(self, key: str) -> None: ...

    def set_desired_workers(self, count: int) -> None: ...

    def add_worker(self, worker: WorkerRecord) -> None: ...

    def remove_worker(self, worker_id: str) -> None: ...

    # time

    def last_seen_time(self) -> float:
        """The latest `now` that any write was given, or that of a later `shift_waiting`; 0.0 in a new store."""

    def shift_waiting(self, seconds: float, now: float) -> None:
        """Move `run_at` of all waiting jobs, after the wall clock was set back: a delay must not grow by the jump.

        Time goes on from `now`: `last_seen_time` becomes that.

        Args:
            seconds: by how much; negative if the clock was set back.
            now: UNIX seconds after the jump.
        """
