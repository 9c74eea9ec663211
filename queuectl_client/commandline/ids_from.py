"""`--ids-from`: many jobs by their ids, from a file or a pipe, on a queue that goes on meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from queuectl_client.render.remarks import remark

if TYPE_CHECKING:
    from queuectl_protocol.messages import JobSummary

BATCH = 1000
"""Ids of a request: each is a transaction, and others wait for it."""
LONGEST = 128
"""Characters of an id."""


def change_jobs(
    jobs: Sequence[str], ids_from: str | None, change: Callable[[Sequence[str], bool], Sequence[JobSummary]]
) -> Iterator[JobSummary]:
    """Call `change` for the jobs that are named, or in batches for those of a file; what became of each.

    Args:
        jobs: as named, all or none.
        ids_from: name of a file, `-` is standard input; those that can't be changed are counted, and passed over.
        change: takes ids, and whether some of them may be passed over.

    Raises:
        click.UsageError: both are given, or none; or the file can't be read, or holds what is no id.
    """
    if jobs and ids_from is not None:
        raise click.UsageError("give jobs or --ids-from FILE, not both", click.get_current_context())
    if not jobs and ids_from is None:
        raise click.UsageError("give jobs, or --ids-from FILE", click.get_current_context())
    if ids_from is None:
        yield from change(jobs, False)
        return
    ids = _read(ids_from)
    changed = 0
    for begin in range(0, len(ids), BATCH):
        for job in change(ids[begin : begin + BATCH], True):
            changed += 1
            yield job
    if passed_over := len(ids) - changed:
        sys.stdout.flush()
        which = "1 job was" if passed_over == 1 else f"{passed_over} jobs were"
        remark(
            f"{which} passed over: ended or removed meanwhile, in a state that does not allow it, or no such job "
            "(whole ids are needed there)"
        )


def _read(name: str) -> list[str]:
    """The ids, each once."""
    try:
        with click.open_file(name, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise click.UsageError(f"can't read {name!r}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST or len(line.split()) > 1:
            raise click.UsageError(f"line {number} of {name!r} is not an id; `jq -r .id` gets them out of `--json`")
    return list(dict.fromkeys(line for line in lines if line))
