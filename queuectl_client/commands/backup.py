"""`queuectl backup`: a copy of the queue, while it works."""

from __future__ import annotations

from pathlib import Path

import click

from queuectl_client.commandline.parameters import as_json, examples
from queuectl_client.commandline.session import Session, pass_session


@click.command(
    epilog=examples("queuectl backup /var/backups/queue.db", 'queuectl backup "queue-$(date +%F).db" --json')
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
@pass_session
def backup(session: Session, *, file: Path, as_json: bool) -> None:
    """Write a consistent copy of the queue's database to FILE, which must be new; nothing stops meanwhile.

    The daemon writes it, as its own user. Logs are not in it. To restore: stop the daemon, put the copy into an empty
    state directory as queue.db, and start a daemon on that (`queuectl daemon start --state-dir DIR`).
    """
    with session.client() as client:
        copy = client.backup(file.absolute())
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(copy)
    else:
        from queuectl_client.render.safe import visible  # noqa: PLC0415 - one of two ways

        click.echo(f"Copied to {visible(copy.path)} ({copy.bytes} bytes)")
