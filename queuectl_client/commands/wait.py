"""`queuectl wait`: until jobs have ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.options import Duration, as_json, examples, jobs_argument
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.render.no_workers import say_if_waiting
from queuectl_client.render.remarks import remark

if TYPE_CHECKING:
    from queuectl_protocol.messages import JobSummary


@click.command(
    epilog=examples(
        "queuectl wait job1 job2 && echo all good",
        "queuectl wait --timeout 10m $(queuectl enqueue -- make)",
    )
)
@jobs_argument()
@click.option("--timeout", type=Duration(), metavar="TIME", help="Give up after this: 90, 90s, 5m, 2h.")
@as_json
@pass_session
@click.pass_context
def wait(ctx: click.Context, session: Session, *, jobs: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Wait until all the jobs have ended; print each with its state. Exit status 0 only if all completed."""
    from queuectl_protocol.jobs import ENDED  # noqa: PLC0415 - `--help` need not pay for the wire

    with session.client() as client:
        say_if_waiting(client, jobs)
        found = client.wait(jobs, timeout=timeout)
    print_summaries(found, as_json=as_json)
    late = [job for job in found if job.state not in ENDED]
    if late:
        which = f"job {late[0].id}" if len(late) == 1 else f"{len(late)} of {len(found)} jobs"
        remark(f"{which} had not ended after {timeout:g} s")
    ctx.exit(0 if all(job.state == "completed" for job in found) else 1)


def print_summaries(jobs: Iterable[JobSummary], *, as_json: bool) -> None:
    """A line a job: its id and its state."""
    from queuectl_client.render.programs import print_json  # noqa: PLC0415 - after the answer came

    for job in jobs:
        if as_json:
            print_json(job)
        else:
            click.echo(f"{job.id}\t{job.state}")
