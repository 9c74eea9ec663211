"""`queuectl list`: jobs, newest first."""

from __future__ import annotations

import click

from queuectl_client import verbs
from queuectl_client.commandline.parameters import examples, options
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.jobs.options import LIST


@click.command(
    "list",
    epilog=examples(
        "queuectl list",
        "queuectl list --state all --limit 10",
        "queuectl list --state dead --queue mail",
        "queuectl list --state failed --limit 0 --json | jq -r .id",
    ),
)
@options(*LIST)
@pass_session
def list_jobs(session: Session, *, state: str, queue: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    with session.client() as client:
        verbs.list_jobs(client, state=state, queue=queue, limit=limit, print_json=json_printer(as_json))
