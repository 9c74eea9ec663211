"""`queuectl retry`: run ended jobs again."""

from __future__ import annotations

import click

from queuectl_client.commandline.ids_from import change_jobs
from queuectl_client.commandline.parameters import examples, jobs_argument, options
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.jobs.options import IDS_FROM, JSON
from queuectl_client.verbs import print_summaries


@click.command(
    epilog=examples(
        "queuectl retry job1",
        "queuectl retry job1 job2",
        "queuectl list --state cancelled --limit 0 --json | jq -r .id | queuectl retry --ids-from -",
    )
)
@jobs_argument("dead", "cancelled", required=False)
@options(IDS_FROM, JSON)
@pass_session
def retry(session: Session, *, jobs: tuple[str, ...], ids_from: str | None, as_json: bool) -> None:
    """Run dead or cancelled jobs again, all or none; their attempts are counted from 0, the old ones stay in `show`."""
    with session.client() as client:
        found = change_jobs(jobs, ids_from, lambda ids, tolerant: client.retry(ids, tolerant=tolerant))
        print_summaries(found, json_printer(as_json))
