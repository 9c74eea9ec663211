"""`queuectl dlq`: jobs whose attempts are used up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import QueueName, as_json, examples, jobs_argument
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.verbs import print_jobs

if TYPE_CHECKING:
    from queuectl_client.client import Client


@click.group()
def dlq() -> None:
    """The dead letter queue: all jobs whose attempts are used up."""


@dlq.command("list", epilog=examples("queuectl dlq list", "queuectl dlq list --queue mail --json"))
@click.option("--queue", type=QueueName(), metavar="NAME", help="Only this queue.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="At most so many; 0 is all.")
@as_json
@pass_session
def list_dead(session: Session, *, queue: str | None, limit: int, as_json: bool) -> None:
    """List dead jobs, newest first, with the reason."""
    with session.client() as client:
        found = client.dlq(queue=queue, limit=limit + 1 if limit else None)
        shown = print_jobs(found, limit, json_printer(as_json), dead=True)
    if shown == 0 and not as_json and sys.stdout.isatty():
        click.echo("No dead jobs.", err=True)


_all = click.option("--all", "everything", is_flag=True, help="All dead jobs.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@dlq.command(epilog=examples("queuectl dlq retry job1", "queuectl dlq retry --all"))
@jobs_argument("dead", required=False)
@_all
@_yes
@as_json
@pass_session
@click.pass_context
def retry(
    ctx: click.Context, session: Session, *, jobs: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """Run dead jobs again: those that are named, or with --all all of them.

    Their attempts are counted from 0; the old ones stay in `show`. On a terminal, --all asks first; --yes does not.
    """
    if bool(jobs) == everything:
        raise click.UsageError("give jobs, or --all", ctx)
    with session.client() as client:
        if everything and not yes and (dead := _dead(client)):
            _confirm(f"Run all dead jobs ({dead}) again?")
        _say("Back to pending", client.dlq_retry(jobs or None), as_json=as_json)


@dlq.command(epilog=examples("queuectl dlq purge job1 job2", "queuectl dlq purge --all --yes"))
@jobs_argument("dead", required=False)
@_all
@_yes
@as_json
@pass_session
@click.pass_context
def purge(
    ctx: click.Context, session: Session, *, jobs: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """Delete dead jobs with their attempts and logs: those that are named, or with --all all of them.

    On a terminal, --all asks first; --yes does not.
    """
    if bool(jobs) == everything:  # a list of jobs that happens to be empty must not mean all
        raise click.UsageError("give jobs, or --all to delete all dead jobs", ctx)
    with session.client() as client:
        if everything and not yes and (dead := _dead(client)):
            _confirm(f"Delete all dead jobs ({dead}), attempts and logs included?")
        _say("Deleted", client.dlq_purge(jobs or None), as_json=as_json)


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _dead(client: Client) -> int:
    """How many there are."""
    from queuectl_protocol.jobs import JobState  # noqa: PLC0415 - `--help` need not pay for the wire

    return client.status().counts.get(JobState.DEAD, 0)


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"


def _confirm(question: str) -> None:
    """Ask a person; where there is none, go on."""
    if _can_ask():
        click.confirm(question, abort=True, err=True)


def _say(done: str, count: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(f'{{"count":{count}}}')
    elif count == 0:
        click.echo("There are no dead jobs.")
    else:
        click.echo(f"{done}: {_count(count)}.")
