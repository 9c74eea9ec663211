"""`queuectl cancel`: jobs that shall not run, or not any more."""

from __future__ import annotations

import click

from queuectl_client.commands.wait import print_summaries
from queuectl_client.options import as_json, examples, jobs_argument
from queuectl_client.render.remarks import remark
from queuectl_client.session import Session, pass_session


@click.command(
    epilog=examples(
        "queuectl cancel job1",
        "queuectl cancel --no-wait job1 job2",
        "queuectl list --limit 0 --json | jq -r .id | xargs queuectl cancel",
    )
)
@jobs_argument("pending", "processing", "failed")
@click.option("--no-wait", is_flag=True, help="Do not wait until running ones have ended.")
@as_json
@pass_session
@click.pass_context
def cancel(ctx: click.Context, session: Session, *, jobs: tuple[str, ...], no_wait: bool, as_json: bool) -> None:
    """Cancel jobs, all or none: waiting ones at once, of running ones the whole process tree is ended."""
    with session.client() as client:
        found = client.cancel(jobs)
        if not no_wait and any(job.state == "processing" for job in found):
            found = client.wait([job.id for job in found])
    print_summaries(found, as_json=as_json)
    missed = [job for job in found if job.state not in {"cancelled", "processing"}]
    for job in missed:
        remark(f"job {job.id} was {job.state} before the cancel reached it")
    if missed:
        ctx.exit(1)
