"""`queuectl enqueue --file`: a file of jobs, one JSON object a line, streamed to the daemon."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from queuectl_client.errors import BadRequest, ClientError
from queuectl_client.jobs.file import JobFile
from queuectl_client.render.ids import print_ids
from queuectl_client.render.remarks import remark
from queuectl_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_client.wire.bulk import Enqueuing


class Progress(Protocol):
    """Told how far it has come."""

    def __call__(self, jobs: int, size: int) -> None:
        """So many jobs are acknowledged, and so many bytes of the file with them."""


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
