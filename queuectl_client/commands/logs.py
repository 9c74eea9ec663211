"""`queuectl logs`: an attempt's output."""

from __future__ import annotations

import sys

import click

from queuectl_client.options import JobRef, as_json, examples
from queuectl_client.render.remarks import remark
from queuectl_client.session import Session, pass_session


@click.command(
    epilog=examples(
        "queuectl logs job1",
        "queuectl logs -f job1",
        "queuectl logs job1 --attempt 1 --tail 20",
        "queuectl logs job1 | less -R",
    )
)
@click.argument("job", metavar="JOB", type=JobRef())
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of attempt N; the newest if none is given.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt has ended; wait for it if need be.")
@click.option("--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Only the last N lines of what is there.")
@as_json
@pass_session
def logs(session: Session, *, job: str, attempt: int | None, follow: bool, tail: int | None, as_json: bool) -> None:
    """Print an attempt's output, standard output and standard error as they came.

    It is passed through as it is, as `cat` would, colours included; `| cat -v` shows control characters.
    """
    with session.client() as client:
        pieces = client.log_pieces(job, attempt=attempt, follow=follow, tail=tail, text=as_json)
        if as_json:
            from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

            for piece in pieces:
                print_json(piece)
                sys.stdout.flush()
            return
        from queuectl_client.commands.run import write_output  # noqa: PLC0415 - one of two ways

        for piece in pieces:
            write_output(piece)
            if piece.attempt is None:
                remark(f"job {job} {'was never' if follow else 'has not been'} started, so there is no output")
