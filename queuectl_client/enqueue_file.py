"""Bulk: a file of jobs, one JSON object a line, streamed to the daemon."""

from __future__ import annotations

import os
import select
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

from queuectl_client import specs
from queuectl_client.bulk import BATCH_BYTES, BATCH_JOBS
from queuectl_client.errors import BadRequest, ClientError
from queuectl_client.render.remarks import remark
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.framing import Lines
from queuectl_protocol.jobs import JobSpec

if TYPE_CHECKING:
    from queuectl_client.bulk import Enqueuing
    from queuectl_client.client import Client

CHUNK = 256 * 1024
ID_BYTES = 24
"""What an id of our own adds to a line, as JSON."""


class Progress(Protocol):
    """Told how far it has come."""

    def __call__(self, jobs: int, size: int) -> None:
        """So many jobs are acknowledged, and so many bytes of the file with them."""


class JobFile:
    """Jobs read from a descriptor, in batches."""

    def __init__(self, descriptor: int, defaults: Mapping[str, Any]) -> None:
        self._descriptor = descriptor
        self._read = specs.reader(defaults)
        # By so much can a job be longer on the wire than in the file.
        given = {key: value for key, value in defaults.items() if value is not None}
        self._extra = ID_BYTES + (len(msgspec.json.encode(given)) if given else 0)
        self.line = 0
        """Number of the line that was read last, from 1."""
        self.ends: list[tuple[int, int]] = []
        """Of each batch: its last line, and how many bytes were read until there."""
        self._size = 0

    def batches(self) -> Iterator[list[JobSpec]]:
        """Batches of jobs; an empty one says that nothing more is there to read at the moment.

        Raises:
            BadRequest: a line is no job. All jobs of the lines before it were yielded.
        """
        lines = Lines()
        batch: list[JobSpec] = []
        length = 0
        while True:
            if not select.select([self._descriptor], [], [], 0)[0]:
                # A pipe that is fed slowly: what is there must not wait for what is not.
                if batch:
                    yield self._ended(batch)
                    batch, length = [], 0
                yield []
            data = os.read(self._descriptor, CHUNK)
            for line in lines.feed(data) if data else [lines.rest]:
                self.line += 1
                size = 1 if line is None else len(line) + 1
                self._size += size
                if line is not None and (not line or line.isspace()):
                    continue
                try:
                    job = self._job(line)
                except BadRequest as error:
                    if batch:
                        yield self._ended(batch, self.line - 1)
                    raise BadRequest(f"line {self.line}: {error.message}", error.hint) from None
                size += self._extra
                if batch and (len(batch) == BATCH_JOBS or length + size > BATCH_BYTES):
                    yield self._ended(batch, self.line - 1)
                    batch, length = [], 0
                batch.append(job)
                length += size
            if not data:
                break
        if batch:
            yield self._ended(batch)

    def _job(self, line: bytes | None) -> JobSpec:
        if line is None:
            raise BadRequest("longer than 1 MiB")
        return self._read(line)

    def _ended(self, batch: list[JobSpec], line: int | None = None) -> list[JobSpec]:
        self.ends.append((self.line if line is None else line, self._size))
        return batch


def enqueue_file(client: Client, name: str, defaults: Mapping[str, Any], *, socket: Path | None, as_json: bool) -> None:
    """Enqueue the jobs of a file, and print their ids as they are acknowledged.

    Args:
        client: asked to do it.
        name: of the file; `-` is standard input.
        defaults: fields of `JobSpec` for the lines that do not give them; those that are None do not count.
        socket: what `--socket` said; a hint that is a command says it again.
        as_json: print objects.

    Raises:
        BadRequest: a line is no job; those before it are enqueued.
        ClientError: the daemon refused a batch, or is gone; the message says which lines are enqueued.
        click.UsageError: the file can't be read.
    """
    from queuectl_client.commands.enqueue import print_ids  # noqa: PLC0415 - it imports this module

    descriptor = _open(name)
    try:
        jobs = JobFile(descriptor, defaults)
        sending = client.enqueue_batches(jobs.batches())
        done = 0
        printing = True
        try:
            with _progress(descriptor) as progress:
                for ids in sending:
                    done += len(ids)
                    if printing:
                        try:
                            print_ids(ids, as_json=as_json)
                            sys.stdout.flush()
                        except BrokenPipeError:
                            printing = False  # `| head` has seen enough; the jobs are wanted all the same
                    progress(done, jobs.ends[sending.settled - 1][1])
        except (ProtocolError, ClientError) as error:
            again = _command(defaults, socket, as_json=as_json)
            _account(error, name, jobs, sending, done, again)
            raise
        except KeyboardInterrupt:
            remark(f"interrupted: {_jobs(done)} acknowledged, a few more may be enqueued")
            raise
    finally:
        if descriptor != 0:
            os.close(descriptor)


def _account(
    error: ProtocolError | ClientError, name: str, jobs: JobFile, sending: Enqueuing, done: int, again: str
) -> None:
    """Add to the error which lines were not enqueued, and how to go on with them: by giving them to `again`."""
    if not sending.taken and not isinstance(error, BadRequest):
        return  # nothing was sent
    starts = [1, *(last + 1 for last, _ in jobs.ends)]
    refused = [(starts[at], jobs.ends[at][0]) for at in sending.refused]
    unknown = [(starts[at], jobs.ends[at][0]) for at in range(sending.settled, sending.taken)]
    said = [error.message]
    if refused:
        said.append(f"lines {_ranges(refused)} are not enqueued")
    if unknown:
        said.append(f"lines {_ranges(unknown)} may be enqueued or not")
    error.message = "; ".join([*said, f"acknowledged: {_jobs(done)}"])
    if name != "-":
        error.message = f"{name}: {error.message}"
        error.hint = _go_on(name, refused, starts[sending.taken], again)


def _go_on(name: str, refused: list[tuple[int, int]], rest: int, again: str) -> str:
    """How to enqueue the lines that are not enqueued: those that were refused, and all from line `rest` on."""
    after = 1
    for first, last in refused:
        if first != after:
            break
        after = last + 1
    if after == rest:
        return "nothing of the file is enqueued: fix it, and run the same command again"
    left = "".join(f"{first},{last}p;" for first, last in refused)
    return f"fix it, and go on with: sed -n '{left}{rest},$p' {shlex.quote(name)} | {again}"


def _command(defaults: Mapping[str, Any], socket: Path | None, *, as_json: bool) -> str:
    """A command that enqueues what it reads in the way in which this one was asked to."""
    words = ["queuectl", *(["--socket", str(socket)] if socket is not None else []), "enqueue"]
    words += [f"--{field.replace('_', '-')}={value}" for field, value in defaults.items() if value is not None]
    return shlex.join([*words, *(["--json"] if as_json else []), "--file", "-"])


def _ranges(lines: list[tuple[int, int]]) -> str:
    return ", ".join(f"{first} to {last}" for first, last in lines)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _open(name: str) -> int:
    if name == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            remark("reading jobs from the terminal, one JSON object a line; end with Ctrl-D")
        return 0
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a file can't be called that"
        raise click.UsageError(f"can't read {name!r}: {reason}") from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise click.UsageError(f"can't read {name!r}: it is a directory")
    return descriptor


def _silent(jobs: int, size: int) -> None:
    del jobs, size


@contextmanager
def _progress(descriptor: int) -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal on which nobody types the jobs."""
    if not sys.stderr.isatty() or os.isatty(descriptor):
        yield _silent
        return
    from rich import progress  # noqa: PLC0415 - only to draw
    from rich.console import Console  # noqa: PLC0415

    status = os.fstat(descriptor)
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    bar = progress.Progress(
        progress.TextColumn("{task.fields[jobs]:,} jobs"),
        progress.BarColumn(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=True),
        # Ids that are printed on the same terminal go above the bar; ids that go elsewhere must not come here.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task("enqueue", total=total, jobs=0)
        yield lambda jobs, size: bar.update(task, completed=size if total else 0, jobs=jobs)
