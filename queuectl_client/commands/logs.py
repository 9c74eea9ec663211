"""`queuectl logs`: an attempt's output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import JobRef, as_json, examples
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.render.no_workers import say_if_none, say_if_waiting
from queuectl_client.render.remarks import remark

if TYPE_CHECKING:
    from queuectl_client.client import Client


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
        if follow:
            say_if_waiting(client, [job])
        pieces = client.log_pieces(job, attempt=attempt, follow=follow, tail=tail, text=as_json)
        if as_json:
            from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

            for piece in pieces:
                print_json(piece)
                sys.stdout.flush()
            return
        from queuectl_client.commands.run import write_output  # noqa: PLC0415 - one of two ways

        written = False
        for piece in pieces:
            write_output(piece)
            written = written or piece.next > piece.offset
        if not written and tail != 0:
            _say_why(client, job, piece.attempt)


def _say_why(client: Client, ref: str, number: int | None) -> None:
    """Why there is no output, where that is no success.

    Args:
        client: asked about it.
        ref: the job's id, or a prefix of it.
        number: of the attempt; None: none was started.
    """
    from msgspec import UNSET  # noqa: PLC0415 - loaded by now

    from queuectl_client.render.times import relative  # noqa: PLC0415
    from queuectl_client.render.views import hint_for, now  # noqa: PLC0415 - loaded by now

    job = client.get(ref, attempts_before=None if number is None else number + 1)
    if number is not None:
        made = [one for one in ([] if job.history is UNSET else job.history) if one.number == number]
        if made and made[0].error:
            remark(f"attempt {number} of job {job.id} wrote nothing: {made[0].error}", hint_for(made[0].error))
    elif job.state not in {"pending", "failed"}:
        remark(f"job {job.id} was never started, so there is no output: it was {job.state}")
    else:
        sentence = f"job {job.id} has not started, so there is no output"
        if job.run_at > now():
            remark(f"{sentence}: it is to run {relative(job.run_at, now())}")
        elif not say_if_none(client, f"{sentence}: no worker runs"):
            remark(f"{sentence}: no worker is free")
