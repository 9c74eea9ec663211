"""Every method of the wire: one struct for what it takes, one for what it answers, and METHODS that pairs them.

The daemon's handlers, the client and docs/protocol.md are checked against this table.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from queuectl_protocol.jobs import AttemptNumber, Job, JobSpec, JobState, Outcome, QueueName, Seconds, Worker

JobRef = Annotated[str, Meta(min_length=1, max_length=128)]
"""A job's id, or a prefix of it that no other id has."""
JobRefs = Annotated[list[JobRef], Meta(min_length=1, max_length=10_000)]
"""Jobs' ids, or prefixes of them that no other id has."""
PageSize = Annotated[int, Meta(ge=1, le=1000)]
"""How many to answer with at most."""
Cursor = Annotated[str, Meta(max_length=64)]
"""`next` of the page before."""
WorkerId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\A[a-z0-9-]+\Z")]
SettingKey = Annotated[str, Meta(min_length=1, max_length=64)]
"""A setting's name; `config.list` tells all."""
SettingValue = int | float | str
MAX_WORKERS = 4096
MAX_INTEGER = 2**63 - 1
"""Neither SQLite nor a file's offset holds a larger one."""
MAX_TIME = 253_402_300_799
"""The last second of the year 9999, in UNIX seconds."""
InternalNumber = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


class _Params(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """Unknown parameters are refused: a misspelt one must not be ignored."""


class _Result(Struct, frozen=True, kw_only=True):
    """Unknown fields of an answer are passed over: a newer daemon may say more."""


class NoParams(_Params, frozen=True):
    pass


# --- server ---------------------------------------------------------------------------------------------------------


class ServerInfo(_Result, frozen=True):
    version: str
    protocol: int
    """A client of another number must not go on."""
    pid: int
    started_at: datetime
    generation: int
    """How often this process has re-executed itself since it was started."""
    state_dir: str
    socket: str
    containment: str
    """How process trees are held together: `cgroup` or `subreaper`."""
    stopping: bool
    reloads_refused: int = 0
    """How often this process was asked to re-execute itself and did not, since it did so last."""
    reload_refusal: str = ""
    """Why not, the last time."""


class BackupParams(_Params, frozen=True):
    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    """Absolute, as the daemon sees it; a file that is not there yet."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or "\0" in self.path:
            raise ValueError("`path` is not an absolute path")


class BackupResult(_Result, frozen=True):
    path: str
    bytes: int


# --- jobs -----------------------------------------------------------------------------------------------------------


class EnqueueParams(_Params, frozen=True):
    jobs: Annotated[list[JobSpec], Meta(min_length=1, max_length=10_000)]
    """Each with an `id`, or the daemon makes one; all are enqueued or none."""


class EnqueueResult(_Result, frozen=True):
    ids: list[str]
    """In the order of `jobs`."""


class JobGetParams(_Params, frozen=True):
    id: JobRef
    env: bool = False
    """Include the environment."""
    attempts_before: AttemptNumber | None = None
    """`history` has attempts with a lower number only. None: the newest."""


class JobListParams(_Params, frozen=True):
    state: JobState | None = None
    """None: all states."""
    queue: QueueName | None = None
    """None: all queues."""
    limit: PageSize = 100
    after: Cursor | None = None


class JobPage(_Result, frozen=True):
    jobs: list[Job]
    """Newest first."""
    next: str | None
    """None: this was the last page."""


class JobIdsParams(_Params, frozen=True):
    ids: JobRefs
    tolerant: bool = False
    """Pass over what is not the id of a job (a prefix is none), and jobs whose state does not allow it."""


class JobSummary(_Result, frozen=True):
    """As little of a job as a program needs to go on."""

    id: str
    state: JobState
    exit_code: int | None = None
    error: str | None = None


class JobSummaries(_Result, frozen=True):
    jobs: list[JobSummary]
    """In the order asked for, each once."""


class JobWaitParams(_Params, frozen=True):
    ids: JobRefs
    timeout: Seconds | None = None
    """Seconds after which the answer comes whatever the states are. None: no limit."""


class JobLogsParams(_Params, frozen=True):
    id: JobRef
    attempt: AttemptNumber | None = None
    """None: the newest."""
    offset: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] = 0
    """Bytes from the start of the log."""
    tail: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """Start so that this many lines remain, looked for in the newest 256 MiB; `offset` is not used then."""
    follow: bool = False
    """Where there is nothing to read yet, answer only when there is, or when the attempt has ended. An attempt that
    has not begun is waited for."""
    base64: bool = False
    """Answer with `base64` instead of `text`: exact also where the output is not UTF-8."""


class JobLogs(_Result, frozen=True):
    attempt: int | None
    """None: no attempt was started; with `follow`, none will be."""
    offset: int
    """Where this piece begins: later than asked for if older output was dropped."""
    next: int
    """`offset` of the next call."""
    end: bool
    """The attempt has ended and this piece reaches its end."""
    text: str | None = None
    base64: str | None = None
    dropped: bool = False
    """Output right before `offset` was dropped, because the log reached its limit. It is said of one piece only."""


# --- dead letter queue ----------------------------------------------------------------------------------------------


def _check_either(ids: list[str] | None, *, everything: bool) -> None:
    if (ids is not None) == everything:
        raise ValueError("give either `ids` or `all`")


class DlqListParams(_Params, frozen=True):
    queue: QueueName | None = None
    """None: all queues."""
    limit: PageSize = 100
    after: Cursor | None = None


class DlqRetryParams(_Params, frozen=True):
    """Exactly one of `ids` and `all`."""

    ids: JobRefs | None = None
    all: bool = False

    def __post_init__(self) -> None:
        _check_either(self.ids, everything=self.all)


class DlqPurgeParams(_Params, frozen=True):
    """Exactly one of `ids` and `all`."""

    ids: JobRefs | None = None
    all: bool = False

    def __post_init__(self) -> None:
        _check_either(self.ids, everything=self.all)


class CountResult(_Result, frozen=True):
    count: int
    """Of how many jobs."""


# --- settings -------------------------------------------------------------------------------------------------------


class Setting(_Result, frozen=True):
    """A setting and its value."""

    key: str
    value: SettingValue
    default: SettingValue
    is_set: bool
    """False: the value is the default."""
    description: str


class ConfigListResult(_Result, frozen=True):
    settings: list[Setting]


class ConfigKeyParams(_Params, frozen=True):
    key: SettingKey


class ConfigSetParams(_Params, frozen=True):
    key: SettingKey
    value: int | float | Annotated[str, Meta(max_length=64)]
    """A string is read as the setting's type."""


# --- workers --------------------------------------------------------------------------------------------------------


class WorkerListResult(_Result, frozen=True):
    workers: list[Worker]
    desired: int
    """The pool size last asked for."""


class WorkerStartParams(_Params, frozen=True):
    count: Annotated[int, Meta(ge=1, le=MAX_WORKERS)]


class WorkerStartResult(_Result, frozen=True):
    ids: list[str]
    """The new ones."""
    desired: int
    """The pool size from now on."""


class WorkerStopParams(_Params, frozen=True):
    ids: Annotated[list[WorkerId], Meta(min_length=1, max_length=MAX_WORKERS)] | None = None
    """None: all. An empty list is refused, so that it can't be taken for that."""
    now: bool = False
    """End their running attempts; those jobs go back to `pending`, and the attempt does not count."""


class WorkerStopResult(_Result, frozen=True):
    ids: list[str]
    """Those that stop."""
    desired: int
    """The pool size from now on."""


# --- what only workers call -----------------------------------------------------------------------------------------


class Lease(Struct, frozen=True):
    """A worker's exclusive right to run one attempt, and all that it needs for it."""

    job: int
    """The job's internal number: paths are made of it, never of its id."""
    attempt: int
    token: str
    """The fence: an outcome that does not carry it is refused."""
    id: str
    queue: str
    max_retries: int
    timeout: float
    """Seconds, 0 is none."""
    log_max_bytes: int
    """0 is no limit."""
    command: str | None = None
    argv: list[str] | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    exact_env: bool = False


class AttemptRef(Struct, frozen=True):
    """An attempt, as its worker names it: what its lease said."""

    job: InternalNumber
    attempt: AttemptNumber
    token: str


class AttemptResult(Struct, frozen=True):
    """What a worker says of an attempt that ended; also the content of an exit record."""

    job: InternalNumber
    attempt: AttemptNumber
    token: str
    outcome: Outcome
    ended_at: Annotated[float, Meta(ge=0, le=MAX_TIME)]
    """UNIX seconds by the worker's clock."""
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    error: str | None = None
    unasked: bool = False
    """With `interrupted`: the command ran, and no daemon asked for its end; the worker got a signal. It counts."""


class AttachParams(_Params, frozen=True):
    worker: WorkerId
    running: AttemptRef | None = None
    """What it runs, when it comes back after a lost connection."""
    ended: AttemptResult | None = None
    """What ended while the connection was lost."""
    exiting: bool = False
    """Whether it was told to exit; by a daemon before this one, perhaps."""
    mark: Annotated[str, Meta(max_length=128)] = ""
    """Of its queue, as the daemon that started it gave it. A daemon of another queue refuses the worker, which waits
    for its own."""


class AttachResult(_Result, frozen=True):
    heartbeat_interval: float
    kill_grace: float
    lease: Lease | None = None
    stale: bool = False
    """The attempt it came with is no longer its own: end it, and forget its outcome."""
    mark: str = ""
    """Of the daemon's queue. Where it is not the worker's own, the whole answer is not for this worker."""
    unknown: bool = False
    """This queue has no such worker: end what runs, forget its outcome, exit."""


class FinishParams(_Params, frozen=True):
    ended: AttemptResult


class FinishResult(_Result, frozen=True):
    lease: Lease | None = None
    """The next attempt. None: wait for `attempt.start`."""


# --- what the daemon tells workers (notifications) ------------------------------------------------------------------


class AttemptStart(_Params, frozen=True):
    lease: Lease


class AttemptEnd(_Params, frozen=True):
    """End the process tree: SIGTERM, `kill_grace` seconds, SIGKILL. The outcome is then `outcome`."""

    attempt: AttemptRef
    outcome: Outcome
    kill_grace: float


class WorkerConfig(_Params, frozen=True):
    heartbeat_interval: float
    kill_grace: float


class WorkerExit(_Params, frozen=True):
    """Exit when idle; one that runs an attempt finishes it first."""


# --- status ---------------------------------------------------------------------------------------------------------


class DaemonStatus(_Result, frozen=True):
    """The daemon, as `status` tells it."""

    version: str
    pid: int
    started_at: datetime
    state_dir: str
    socket: str
    containment: str
    desired_workers: int
    stopping: bool


class StatusResult(_Result, frozen=True):
    counts: dict[JobState, int]
    workers: list[Worker]
    daemon: DaemonStatus


class Method(NamedTuple):
    """One row of the table of methods.

    Attributes:
        params: what it takes.
        result: what it answers.
        summary: one sentence for the reference.
        repeatable: sending it again after a lost connection does no harm, so the client does.
        workers_only: refused to everyone but the daemon's own workers.
    """

    params: type[Struct]
    result: type[Struct] | None
    summary: str
    repeatable: bool = True
    workers_only: bool = False


METHODS: dict[str, Method] = {
    "server.info": Method(NoParams, ServerInfo, "Who answers: version, protocol, PID, paths."),
    "server.backup": Method(
        BackupParams,
        BackupResult,
        "Write a consistent copy of the database to a new file, while everything goes on.",
        repeatable=False,
    ),
    "job.enqueue": Method(
        EnqueueParams,
        EnqueueResult,
        "Enqueue jobs in one transaction, all or none. An id that is there with the same content is success.",
    ),
    "job.get": Method(JobGetParams, Job, "One job with its attempts."),
    "job.list": Method(JobListParams, JobPage, "Jobs, newest first, a page at a time."),
    "job.cancel": Method(
        JobIdsParams,
        JobSummaries,
        "Cancel jobs, all or none, or with `tolerant` those that can be. A running one is `processing` until its "
        "process tree has ended.",
    ),
    "job.retry": Method(
        JobIdsParams,
        JobSummaries,
        "Put cancelled or dead jobs back to `pending`, all or none, or with `tolerant` those that can be.",
        repeatable=False,
    ),
    "job.wait": Method(JobWaitParams, JobSummaries, "Answers when all the jobs have ended."),
    "job.logs": Method(JobLogsParams, JobLogs, "A piece of an attempt's output, at most 256 KiB."),
    "dlq.list": Method(DlqListParams, JobPage, "Dead jobs, newest first, a page at a time."),
    "dlq.retry": Method(
        DlqRetryParams, CountResult, "Put dead jobs back to `pending` with no attempts used.", repeatable=False
    ),
    "dlq.purge": Method(DlqPurgeParams, CountResult, "Delete dead jobs, their attempts and logs.", repeatable=False),
    "config.list": Method(NoParams, ConfigListResult, "All settings."),
    "config.get": Method(ConfigKeyParams, Setting, "One setting."),
    "config.set": Method(ConfigSetParams, Setting, "Change a setting, effective at once."),
    "config.unset": Method(ConfigKeyParams, Setting, "Give a setting its default back."),
    "worker.list": Method(NoParams, WorkerListResult, "The workers."),
    "worker.start": Method(WorkerStartParams, WorkerStartResult, "Add workers to the pool.", repeatable=False),
    "worker.stop": Method(
        WorkerStopParams, WorkerStopResult, "Take workers out of the pool after their current job, or at once."
    ),
    "status.get": Method(NoParams, StatusResult, "Counts of all states, the workers, the daemon."),
    "worker.attach": Method(
        AttachParams,
        AttachResult,
        "A worker's first call on a connection, and its first after a lost one.",
        workers_only=True,
    ),
    "worker.finish": Method(
        FinishParams, FinishResult, "The outcome of an attempt; the answer may carry the next one.", workers_only=True
    ),
    "worker.heartbeat": Method(NoParams, None, "A notification: the worker is alive.", workers_only=True),
}

NOTIFICATIONS: dict[str, type[Struct]] = {
    "attempt.start": AttemptStart,
    "attempt.end": AttemptEnd,
    "worker.config": WorkerConfig,
    "worker.exit": WorkerExit,
}
"""What the daemon sends to workers without being asked."""
