"""`queuectl list`: jobs, newest first."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.options import STATES, QueueName, as_json, examples
from queuectl_client.commandline.session import Session, pass_session

if TYPE_CHECKING:
    from queuectl_protocol.jobs import Job

PAGE = 200
"""Jobs that are drawn at once: columns are as wide as these need."""


@click.command(
    "list",
    epilog=examples(
        "queuectl list",
        "queuectl list --state all --limit 10",
        "queuectl list --state dead --queue mail",
        "queuectl list --state failed --limit 0 --json | jq -r .id",
    ),
)
@click.option("--state", type=click.Choice([*STATES, "all"]), default="pending", show_default=True, help="Which jobs.")
@click.option("--queue", type=QueueName(), metavar="NAME", help="Only this queue.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many; 0 is all.")
@as_json
@pass_session
def list_jobs(session: Session, *, state: str, queue: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    with session.client() as client:
        # One more than is shown tells whether there are more.
        found = client.list(None if state == "all" else state, queue=queue, limit=limit + 1 if limit else None)
        shown = show_jobs(found, limit, as_json=as_json)
    if shown == 0 and not as_json and sys.stdout.isatty():
        click.echo("No jobs." if state == "all" else f"No {state} jobs (`--state all` lists all).", err=True)


def show_jobs(found: Iterator[Job], limit: int, *, dead: bool = False, as_json: bool) -> int:
    """Print jobs, at most `limit` (0 is all), and say if there are more.

    Returns:
        How many were printed.
    """
    wanted = islice(found, limit) if limit else found
    count = _print_json(wanted) if as_json else _print_tables(wanted, dead=dead)
    if count and limit and sys.stdout.isatty() and not as_json and next(found, None) is not None:
        click.echo(f"There are more than these {limit}: `--limit 0` lists all.", err=True)
    return count


def _print_json(jobs: Iterable[Job]) -> int:
    from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

    count = 0
    for job in jobs:
        print_json(job)
        count += 1
    return count


def _print_tables(jobs: Iterator[Job], *, dead: bool) -> int:
    from queuectl_client.render import people, views  # noqa: PLC0415 - one of two ways

    now = views.now()
    widths: dict[int, int] = {}
    count = 0
    while page := list(islice(jobs, PAGE)):
        rows: Sequence[Sequence[people.Cell]] = [
            views.dead_row(job, now) if dead else views.list_row(job, now) for job in page
        ]
        columns = views.DEAD_COLUMNS if dead else views.LIST_COLUMNS
        people.draw([people.Table(columns, rows, heading=count == 0, widths=widths)])
        count += len(page)
    return count
