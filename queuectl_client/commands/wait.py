"""`queuectl wait`: until jobs have ended."""

from __future__ import annotations

import click

from queuectl_client import verbs
from queuectl_client.commandline.parameters import examples, jobs_argument, options
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.jobs.options import WAIT


@click.command(
    epilog=examples(
        "queuectl wait job1 job2 && echo all good",
        "queuectl wait --timeout 10m $(queuectl enqueue -- make)",
    )
)
@jobs_argument()
@options(*WAIT)
@pass_session
@click.pass_context
def wait(ctx: click.Context, session: Session, *, jobs: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Wait until all the jobs have ended; print each with its state. Exit status 0 only if all completed."""
    with session.client() as client:
        ctx.exit(verbs.wait(client, jobs, timeout, json_printer(as_json)))
