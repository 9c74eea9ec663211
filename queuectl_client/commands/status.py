"""`queuectl status`: what the queue holds, and who works on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import examples, options
from queuectl_client.commandline.session import Session, json_printer, pass_session
from queuectl_client.jobs.options import STATUS
from queuectl_client.verbs import print_status

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_protocol.messages import StatusResult


@click.command(
    epilog=examples(
        "queuectl status",
        "queuectl status --watch",
        "queuectl status --watch 0.5",
        "queuectl status --json | jq .counts.pending",
    )
)
@options(*STATUS)
@pass_session
def status(session: Session, *, watch: float | None, as_json: bool) -> None:
    """Show the counts of all states, the workers with their PIDs, and what they run."""
    with session.client() as client:
        if watch is not None and not as_json and sys.stdout.isatty():
            _live(client, watch)
            return
        print_json = json_printer(as_json)
        for at, answer in enumerate(_answers(client, watch)):
            print_status(answer, print_json, again=at > 0)


def _answers(client: Client, watch: float | None) -> Iterator[StatusResult]:
    """One answer, or with `watch` one every so many seconds, without end."""
    while True:
        yield client.status()
        if watch is None:
            return
        time.sleep(watch)


def _live(client: Client, watch: float) -> None:
    """Drawn over itself on the terminal, until Ctrl-C."""
    from rich.live import Live  # noqa: PLC0415 - only to draw

    from queuectl_client.render import people, views  # noqa: PLC0415

    console = people.console()
    with Live(console=console, auto_refresh=False) as live:
        for answer in _answers(client, watch):
            parts = [*views.status_parts(answer, views.now()), people.Cell("Ctrl-C ends this", "dim")]
            live.update(people.renderable(parts, console.width), refresh=True)
