"""`queuectl retry`: run ended jobs again."""

from __future__ import annotations

import click

from queuectl_client.commands.wait import print_summaries
from queuectl_client.options import as_json, examples, jobs_argument
from queuectl_client.session import Session, pass_session


@click.command(epilog=examples("queuectl retry job1", "queuectl retry job1 job2"))
@jobs_argument("dead", "cancelled")
@as_json
@pass_session
def retry(session: Session, *, jobs: tuple[str, ...], as_json: bool) -> None:
    """Run dead or cancelled jobs again, all or none; their attempts are counted from 0, the old ones stay in `show`."""
    with session.client() as client:
        print_summaries(client.retry(jobs), as_json=as_json)
