"""`queuectl worker`: the processes that run jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import WorkerRef, as_json, examples
from queuectl_client.commandline.session import Session, pass_session

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_protocol.jobs import Worker

LOOK_SECONDS = 0.2
"""Between two looks at workers that are stopping."""


@click.group()
def worker() -> None:
    """Start, stop and list workers. Each runs one job at a time."""


@worker.command(epilog=examples("queuectl worker start", "queuectl worker start --count 4"))
@click.option(
    "--count", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="N", help="How many to add."
)
@as_json
@pass_session
def start(session: Session, *, count: int, as_json: bool) -> None:
    """Add workers. They are kept: replaced when they die, and started again with the daemon."""
    with session.client() as client:
        result = client.start_workers(count)
        left = [] if as_json else _still_running(client)
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(result)
    else:
        click.echo(f"Started {_workers(len(result.ids))} ({result.desired} in all): {' '.join(result.ids)}")
        if left:
            click.echo(
                f"Still running {'its' if len(left) == 1 else 'their'} last job, and not counted: {_named(left)}"
            )


@worker.command(
    epilog=examples(
        "queuectl worker stop",
        "queuectl worker stop w3 w4",
        "queuectl worker stop --now",
        "queuectl worker stop --wait",
    )
)
@click.argument("workers", metavar="[WORKER...]", nargs=-1, type=WorkerRef())
@click.option(
    "--now", is_flag=True, help="End their running jobs, which go back to pending; the attempt does not count."
)
@click.option("--wait", is_flag=True, help="Return only when they are gone.")
@as_json
@pass_session
def stop(session: Session, *, workers: tuple[str, ...], now: bool, wait: bool, as_json: bool) -> None:
    """Stop workers, all if none are named: each after its current job, or --now."""
    with session.client() as client:
        result = client.stop_workers(workers or None, now=now)
        if wait:
            _wait_until_gone(client, result.ids)
        left = [] if as_json or wait or now else _still_running(client)
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(result)
    elif not result.ids:
        click.echo("No workers to stop.")
    else:
        how = "" if wait else " now" if now else " after the current job of each"
        click.echo(f"{'Stopped' if wait else 'Stopping'} {_workers(len(result.ids))}{how}: {' '.join(result.ids)}")
        if left:
            click.echo(f"Still running: {_named(left)}")


@worker.command("list", epilog=examples("queuectl worker list", "queuectl worker list --json | jq .pid"))
@as_json
@pass_session
def list_workers(session: Session, *, as_json: bool) -> None:
    """List the workers with PID, state and job."""
    with session.client() as client:
        found = client.workers()
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        for one in found.workers:
            print_json(one)
        return
    from queuectl_client.render import people, views  # noqa: PLC0415 - one of two ways

    people.draw([views.workers_table(found.workers, views.now())])
    if not found.workers and sys.stdout.isatty():
        click.echo("No workers: `queuectl worker start --count 2` starts some.", err=True)


def _wait_until_gone(client: Client, ids: Sequence[str]) -> None:
    # There is no call that waits for a worker; a look now and then is cheap, and this is no daemon.
    while {one.id for one in client.workers().workers}.intersection(ids):
        time.sleep(LOOK_SECONDS)


def _still_running(client: Client) -> Sequence[Worker]:
    """Workers that were told to stop, and run their last job."""
    return [one for one in client.workers().workers if one.state == "stopping" and one.job is not None]


def _named(workers: Sequence[Worker]) -> str:
    return ", ".join(f"{one.id} (job {one.job})" for one in workers)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
