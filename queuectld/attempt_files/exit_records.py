"""Outcomes that could not be told to the daemon at once, kept as files in the state directory until they are."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from queuectl_protocol.messages import AttemptResult
from queuectld import failpoints
from queuectld.attempt_files import regular_files

_UNFINISHED = ".tmp"

MAX_SIZE = 1024 * 1024
"""Bytes of a record, at most; what is larger is none. The longest that a worker writes holds a path or two."""

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of a record: taken for "there is none", it would make a job that has ended run again."""

_decoder = msgspec.json.Decoder(AttemptResult)


def path_of(state_dir: Path, job: int, attempt: int) -> Path:
    return state_dir / "exits" / f"{job}.{attempt}.json"


def write(state_dir: Path, result: AttemptResult) -> None:
    """Put it on disk. When this returns, neither a crash nor a power cut takes it away.

    Raises:
        OSError: the disk is full or failed.
    """
    path = path_of(state_dir, result.job, result.attempt)
    path.parent.mkdir(mode=0o700, exist_ok=True)  # somebody may have tidied up; not where the whole directory is gone
    temporary = path.with_suffix(_UNFINISHED)
    regular_files.remove(temporary)  # of an earlier try; and a link in its place is not followed
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        content = msgspec.json.encode(result)
        if os.write(descriptor, content) != len(content):  # so ends the last write that a full disk takes
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        failpoints.hit("worker.record.written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoints.hit("worker.record.synced")
    temporary.rename(path)
    failpoints.hit("worker.record.renamed")
    # The rename is on disk only when the directory is.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(state_dir: Path, job: int, attempt: int) -> AttemptResult | None:
    """The record of an attempt; None if there is none, no whole one, or none that can be read.

    Jobs run as the user who owns the directory, so anything may be in the record's place. It is neither followed nor
    waited for, and no more than MAX_SIZE of it is read.

    Raises:
        OSError: this process lacks descriptors or memory at the moment. A record may be there, so try again.
    """
    path = path_of(state_dir, job, attempt)
    try:
        content = regular_files.content(path, MAX_SIZE)
    except OSError as error:
        if error.errno in _PASSING:
            raise
        return None
    if content is None:
        return None
    try:
        return _decoder.decode(content)
    except (ValueError, RecursionError):  # not JSON, no record, not UTF-8; nested too deep
        return None


def remove(state_dir: Path, job: int, attempt: int) -> None:
    """Forget it, whole or not, once the outcome is committed or refused.

    What can't be removed stays, and harms nobody: no other attempt has its name.
    """
    path = path_of(state_dir, job, attempt)
    regular_files.remove(path)
    regular_files.remove(path.with_suffix(_UNFINISHED))


def keep_only(state_dir: Path, wanted: Collection[tuple[int, int]]) -> None:
    """Forget those of all attempts but `wanted`, (job, attempt) each."""
    stems = {path_of(state_dir, job, attempt).stem for job, attempt in wanted}
    with contextlib.suppress(OSError):  # what is no directory of ours is no reason not to start
        for path in (state_dir / "exits").iterdir():
            if path.stem not in stems:
                regular_files.remove(path)
