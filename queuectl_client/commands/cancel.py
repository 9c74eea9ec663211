"""`queuectl cancel`: jobs that shall not run, or not any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queuectl_client import verbs
from queuectl_client.commandline.ids_from import change_jobs
from queuectl_client.commandline.parameters import examples, jobs_argument, options
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.jobs.options import CANCEL

if TYPE_CHECKING:
    from queuectl_protocol.messages import JobSummary


@click.command(
    epilog=examples(
        "queuectl cancel job1",
        "queuectl cancel --no-wait job1 job2",
        "queuectl list --queue night --limit 0 --json | jq -r .id | queuectl cancel --ids-from -",
    )
)
@jobs_argument("pending", "processing", "failed", required=False)
@options(*CANCEL)
@pass_session
@click.pass_context
def cancel(
    ctx: click.Context,
    session: Session,
    *,
    jobs: tuple[str, ...],
    ids_from: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Cancel jobs, all or none: waiting ones at once, of running ones the whole process tree is ended."""
    with session.client() as client:

        def change(ids: Sequence[str], tolerant: bool) -> Sequence[JobSummary]:
            return verbs.cancel(client, ids, no_wait=no_wait, tolerant=tolerant)

        found = [*change_jobs(jobs, ids_from, change)]
    ctx.exit(verbs.print_cancelled(found, json_printer(as_json)))
