"""`queuectl show`: everything about one job."""

from __future__ import annotations

import click

from queuectl_client.commandline.parameters import JobRef, as_json, examples
from queuectl_client.commandline.session import Session, pass_session


@click.command(
    epilog=examples("queuectl show job1", "queuectl show 7k --env", "queuectl show job1 --json | jq .history")
)
@click.argument("job", metavar="JOB", type=JobRef())
@click.option("--env", is_flag=True, help="Its environment too; it may hold secrets.")
@as_json
@pass_session
def show(session: Session, *, job: str, env: bool, as_json: bool) -> None:
    """Show everything about one job, its newest 1,000 attempts included. JOB is an id, or a unique prefix of one."""
    with session.client() as client:
        found = client.get(job, env=env)
        # A job that waits is told why it waits.
        idle = not as_json and found.state in {"pending", "failed"} and not client.workers().desired
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(found)
        return
    from queuectl_client.render import people, views  # noqa: PLC0415 - one of two ways

    people.draw(views.job_parts(found, views.now(), no_workers=idle))
