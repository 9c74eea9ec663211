"""`queuectl cancel`: jobs that shall not run, or not any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.ids_from import change_jobs, ids_from_option
from queuectl_client.commandline.options import as_json, examples, jobs_argument
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.commands.wait import print_summaries
from queuectl_client.render.remarks import remark

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
@ids_from_option
@click.option("--no-wait", is_flag=True, help="Do not wait until running ones have ended.")
@as_json
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
            found = client.cancel(ids, tolerant=tolerant)
            if not no_wait and any(job.state == "processing" for job in found):
                found = client.wait([job.id for job in found])
            # The command of a running one may have ended just before: of many, that is no news.
            return [job for job in found if job.state in {"cancelled", "processing"}] if tolerant else found

        found = [*change_jobs(jobs, ids_from, change)]
    print_summaries(found, as_json=as_json)
    missed = [job for job in found if job.state not in {"cancelled", "processing"}]
    for job in missed:
        remark(f"job {job.id} was {job.state} before the cancel reached it")
    if missed:
        ctx.exit(1)
