"""Rows as typed values. What is in the file was checked when it was written; but a file can be changed, and disks rot.

One row that can't be read must not take a page of others along, nor block all that wait behind it. To be looked at, it
is repaired as far as it can be; to be run, it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct

from queuectl_protocol.errors import cut
from queuectl_protocol.jobs import Attempt, Job, JobState, Outcome
from queuectl_protocol.messages import MAX_TIME
from queuectld.core.choice import Traits
from queuectld.store.base import JobRecord, ReadyJob, RunningAttempt, UnreadableJob
from queuectld.store.sqlite.connection import Row

T = TypeVar("T")
_Time = Annotated[float, Meta(ge=0, le=MAX_TIME)]

_argv_decoder = msgspec.json.Decoder(list[str])
_environment_decoder = msgspec.json.Decoder(dict[str, str])


class _JobRow(Struct, frozen=True, array_like=True):
    """In the order of the statements' columns."""

    number: int
    id: str
    queue: str
    state: JobState
    command: str | None
    argv: str | None
    priority: int
    attempts: int
    max_retries: int
    timeout: float
    label: str
    cwd: str | None
    run_at: _Time
    created_at: _Time
    updated_at: _Time
    exit_code: int | None
    error: str | None
    cancelling: bool


class _AttemptRow(Struct, frozen=True, array_like=True):
    """As above."""

    number: int
    worker: str
    started_at: _Time
    ended_at: _Time | None
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    error: str | None


class _ReadyRow(Struct, frozen=True, array_like=True):
    """As above, without `run_at`, which comes last and only has to be one."""

    number: int
    id: str
    queue: str
    attempts: int
    max_retries: int
    timeout: float
    last_attempt: int
    command: str | None
    argv: str | None
    cwd: str | None
    env: str | None
    exact_env: bool


_HINTS: dict[type[Any], dict[str, Any]] = {
    kind: get_type_hints(kind, include_extras=True) for kind in (_JobRow, _AttemptRow, _ReadyRow, JobRecord)
}


def job_of(row: Row) -> Job:
    read = _mended(_JobRow, row)
    command, argv = read.command, None
    if read.argv is not None:
        try:
            argv = _argv_decoder.decode(read.argv)
        except msgspec.MsgspecError:
            command = read.argv  # so that it can be seen what is there
    return Job(
        id=read.id,
        queue=read.queue,
        state=read.state,
        command=UNSET if command is None else command,
        argv=UNSET if argv is None else argv,
        priority=read.priority,
        attempts=read.attempts,
        max_retries=read.max_retries,
        timeout=read.timeout,
        label=read.label,
        cwd=read.cwd,
        run_at=_utc(read.run_at),
        created_at=_utc(read.created_at),
        updated_at=_utc(read.updated_at),
        exit_code=read.exit_code,
        error=_cut(read.error),
        cancelling=read.cancelling,
    )


def environment_of(text: object) -> dict[str, str]:
    """Empty where it can't be read."""
    try:
        return _environment_decoder.decode(text if isinstance(text, str) else b"{}")
    except msgspec.MsgspecError:
        return {}


def attempt_of(row: Row) -> Attempt:
    read = _mended(_AttemptRow, row)
    return Attempt(
        number=read.number,
        worker=read.worker,
        started_at=_utc(read.started_at),
        ended_at=None if read.ended_at is None else _utc(read.ended_at),
        outcome=read.outcome,
        exit_code=read.exit_code,
        signal=read.signal,
        error=_cut(read.error),
    )


def record_of(row: Row) -> JobRecord:
    record = _mended(JobRecord, row)
    return record if record.error is None else dataclasses.replace(record, error=cut(record.error))


def running_of(row: Row) -> RunningAttempt:
    return RunningAttempt(record_of(row[:-4]), *row[-4:])


def time_of(run_at: object) -> float:
    """-infinity where it is no time: the job is due at once, so that a worker's request finds it out."""
    return run_at if isinstance(run_at, float) else float("-inf")


def traits_of(queue: object, priority: object) -> Traits:
    """Every value that is not of its type replaced."""
    return Traits(*(_mend(value, kind) for value, kind in ((queue, str), (priority, int))))  # type: ignore[arg-type]


def ready_of(row: Row) -> ReadyJob:
    """
    Raises:
        UnreadableJob: something of it is not what can have been enqueued; nothing is guessed of what will be executed.
    """
    *values, run_at = row
    try:
        msgspec.convert(run_at, float)
        read = _strict(_ReadyRow, values)
        argv = None if read.argv is None else _argv_decoder.decode(read.argv)
        if not (argv or read.command):
            raise msgspec.ValidationError("it has no command")
        return ReadyJob(
            number=read.number,
            id=read.id,
            queue=read.queue,
            attempts=read.attempts,
            max_retries=read.max_retries,
            timeout=read.timeout,
            last_attempt=read.last_attempt,
            command=read.command,
            argv=argv,
            cwd=read.cwd,
            env=None if read.env is None else _environment_decoder.decode(read.env),
            exact_env=read.exact_env,
        )
    except msgspec.MsgspecError as error:
        mended = _mended(_ReadyRow, values)
        raise UnreadableJob(mended.number, mended.id, mended.attempts, mended.last_attempt, str(error)) from error


def _cut(error: str | None) -> str | None:
    """Version 0.1.0 has stored errors of any length."""
    return None if error is None else cut(error)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _strict(kind: type[T], values: Row | list[Any]) -> T:
    # Not strict only in that SQLite has no booleans, and gives a whole number where a REAL has no fraction.
    named = values if issubclass(kind, Struct) else dict(zip(_HINTS[kind], values, strict=True))
    return msgspec.convert(named, kind, strict=False)


def _mended(kind: type[T], values: Row | list[Any]) -> T:
    """Every value that is not of its type replaced by none, zero or nothing."""
    try:
        return _strict(kind, values)
    except msgspec.ValidationError:
        hints: Mapping[str, Any] = _HINTS[kind]
        mended = [_mend(value, hint) for value, hint in zip(values, hints.values(), strict=True)]
        return _strict(kind, mended)


def _mend(value: object, hint: Any) -> object:
    readable = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    for candidate in (readable, None, 0, ""):
        try:
            return msgspec.convert(candidate, hint, strict=False)
        except msgspec.ValidationError:
            continue
    return value
