"""What the queue is about: a job as asked for, a job as it is, its attempts, and the workers."""

from __future__ import annotations

import enum
import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from queuectl_protocol import states

MAX_ARGUMENT_BYTES = 128 * 1024 - 1
"""Linux takes no longer string in an argument vector or environment (MAX_ARG_STRLEN, with its NUL)."""

MIN_TIMEOUT = 0.01
"""Seconds. A shorter timeout would end a job before its program was loaded."""

MAX_SECONDS = 315_360_000
"""Ten years: no delay or timeout is longer."""

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._-]+\Z")]
QueueName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._-]+\Z")]
Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
Retries = Annotated[int, Meta(ge=0, le=10_000)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Label = Annotated[str, Meta(max_length=200)]
AttemptNumber = Annotated[int, Meta(ge=1, le=2**31)]

_VARIABLE_NAME = re.compile(r"[^=\0]+")


class JobState(enum.StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"  # waits to be run, not before `run_at`
    PROCESSING = "processing"  # leased to a worker, running
    COMPLETED = "completed"  # its command exited 0
    FAILED = "failed"  # its last attempt failed; it waits for its retry at `run_at`
    DEAD = "dead"  # its attempts are used up: it is in the dead letter queue
    CANCELLED = "cancelled"  # ended by a person


WAITING = tuple(map(JobState, states.WAITING))
"""States that a worker may take a job from, once its `run_at` has come."""

ENDED = tuple(map(JobState, states.ENDED))
"""States in which nothing more happens by itself."""


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"  # exit code 0
    FAILED = "failed"  # another exit code, a signal, or it could not be started
    TIMEOUT = "timeout"  # ended by its worker after `timeout` seconds
    LOST = "lost"  # its worker vanished or fell silent: "worker lost"
    CANCELLED = "cancelled"  # ended because a person said so
    INTERRUPTED = "interrupted"  # by a shutdown, not counted; with an error: by a signal to its worker, counted


class JobSpec(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A job as it is asked for: the fields of `queuectl enqueue '{...}'`.

    Exactly one of `command` and `argv` is given. Two specs with the same id ask for the same job if all other fields
    are equal; with `exact_env`, of `env` only the variables that `env_given` names are compared.

    Raises:
        ValueError: with the field named, where it can't be run. Types and ranges are checked on decoding only.
    """

    id: Id | None = None
    """None: one is made. To be able to send a request again, give one; `queuectl` always does."""
    command: str | None = None
    """Run by `/bin/sh -c`."""
    argv: list[str] | None = None
    """Executed as it is, without a shell. `argv[0]` is looked up in the job's PATH."""
    queue: QueueName = "default"
    """Made when it is first named."""
    priority: Priority = 0
    """Higher runs first."""
    max_retries: Retries | None = None
    """Executions in all, the first included; 0 and 1 both mean one. None: the setting `max_retries`."""
    timeout: Seconds | None = None
    """Seconds an attempt may take, 0 is no limit, else at least 0.01. None: the setting `job_timeout`."""
    delay: Seconds = 0
    """Seconds before it may first run."""
    label: Label = ""
    """A remark for people, shown in lists."""
    cwd: str | None = None
    """An absolute path. None: the home of the daemon's user."""
    env: dict[str, str] | None = None
    """Variables, on top of a small clean base."""
    exact_env: bool = False
    """`env` is the whole environment: the clean base is left out. The client says this for `--` and `-c`."""
    env_given: list[str] | None = None
    """With `exact_env`: which variables of `env` were asked for, as with `--env`; the others are the caller's own."""

    def __post_init__(self) -> None:
        if (self.command is None) == (self.argv is None):
            raise ValueError("give exactly one of `command` and `argv`")
        if self.command is not None:
            if not self.command.strip():
                raise ValueError("`command` is empty")
            _check_string(self.command, "command")
        if self.argv is not None:
            if not self.argv or not self.argv[0]:
                raise ValueError("`argv` is empty")
            for argument in self.argv:
                _check_string(argument, "argv")
        if self.timeout is not None and 0 < self.timeout < MIN_TIMEOUT:
            raise ValueError(f"`timeout` is 0 (none) or at least {MIN_TIMEOUT} seconds")
        if self.cwd is not None:
            if not self.cwd.startswith("/"):
                raise ValueError("`cwd` is not an absolute path")
            _check_string(self.cwd, "cwd")
        for name, value in (self.env or {}).items():
            if not _VARIABLE_NAME.fullmatch(name):
                raise ValueError("`env` has a variable whose name is empty or has `=` or NUL in it")
            _check_string(f"{name}={value}", "env")
        if self.env_given and not set(self.env_given) <= set(self.env or {}):
            raise ValueError("`env_given` names a variable that `env` does not have")


def _check_string(value: str, field: str) -> None:
    if "\0" in value:
        raise ValueError(f"`{field}` has a NUL byte in it")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"`{field}` is not valid Unicode, and can't be sent as JSON") from None
    if size > MAX_ARGUMENT_BYTES:
        raise ValueError(f"`{field}` has a string of over {MAX_ARGUMENT_BYTES} bytes, which Linux can't execute")


class Attempt(Struct, frozen=True):
    """One execution of a job, as `show` tells it. Times are UTC."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    """None while it runs."""
    exit_code: int | None = None
    """128 + n after signal n, as a shell says it."""
    signal: int | None = None
    error: str | None = None
    """Why it failed, where there is more to say than the exit code."""


class Job(Struct, frozen=True, kw_only=True):
    """A job as it is. Times are UTC. `command` or `argv` is there, as it was asked for; `attempts` counts the
    started executions since it was enqueued or retried from the DLQ.
    """

    id: str
    queue: str
    state: JobState
    command: str | UnsetType = UNSET
    argv: list[str] | UnsetType = UNSET
    priority: int
    attempts: int
    max_retries: int
    timeout: float
    label: str = ""
    cwd: str | None = None
    run_at: datetime
    """Not started before. Of an ended job: when it last could be."""
    created_at: datetime
    updated_at: datetime
    exit_code: int | None = None
    """Of the last attempt that ended."""
    error: str | None = None
    """Of the last attempt that ended."""
    cancelling: bool = False
    """A person cancelled it; its processes are being ended."""
    env: dict[str, str] | UnsetType = UNSET
    """Only where asked for: environments hold secrets."""
    exact_env: bool | UnsetType = UNSET
    """Whether `env` is the whole environment; given with it."""
    history: list[Attempt] | UnsetType = UNSET
    """The newest attempts, at most 1,000, the oldest of them first; only in `job.get`."""
    older_attempts: int | UnsetType = UNSET
    """How many attempts came before those of `history`; only where there are any."""


class WorkerState(enum.StrEnum):
    """What a worker does."""

    STARTING = "starting"  # spawned, not attached yet
    IDLE = "idle"  # waits for a job
    BUSY = "busy"  # runs an attempt
    STOPPING = "stopping"  # runs its last attempt
    DETACHED = "detached"  # alive, but not connected to this daemon (yet)
    ENDING = "ending"  # vanished or silent: its processes are being ended


class Worker(Struct, frozen=True):
    """A worker process, as `worker list` and `status` tell it."""

    id: str
    pid: int
    state: WorkerState
    job: str | None
    """The id of the job that it runs."""
    attempt: int | None
    started_at: datetime
    """When the process was started, UTC."""
    job_started_at: datetime | None = None


def spec_decoder() -> msgspec.json.Decoder[JobSpec]:
    """A decoder for one JSON job, as `enqueue` takes it."""
    return msgspec.json.Decoder(JobSpec)


_content_encoder = msgspec.json.Encoder(order="deterministic")
_CONTENT_FIELDS = [
    (field.name, field.default)
    for field in msgspec.structs.fields(JobSpec)
    if field.name not in {"id", "env", "env_given"}
]


def content(spec: JobSpec) -> bytes:
    """What makes two specs the same job, in one form however they were written: all fields but the id.

    A field that is given its default is the same as one that is left out; the order of `env` does not matter. The
    caller's own environment is left out: the same command from another terminal is the same job. Fields that later
    versions add, with a default, leave the content of today's specs as it is.
    """
    if spec.exact_env:
        variables = {name: spec.env[name] for name in spec.env_given or ()} if spec.env else None
        return _content(spec, variables or None)
    return _content(spec, spec.env)


def content_of_0_1(spec: JobSpec) -> bytes:
    """What version 0.1 took for it: the caller's environment was part of it."""
    return _content(spec, spec.env)


def _content(spec: JobSpec, variables: dict[str, str] | None) -> bytes:
    given: dict[str, Any] = {} if variables is None else {"env": variables}
    for name, default in _CONTENT_FIELDS:
        value = getattr(spec, name)
        if value != default:
            given[name] = value + 0.0 if isinstance(value, float) else value  # + 0.0 makes 0 of -0
    return _content_encoder.encode(given)
