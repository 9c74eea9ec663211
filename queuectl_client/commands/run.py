"""`queuectl run`: a job as if it were run right here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from queuectl_client.commandline.parameters import examples, options
from queuectl_client.commandline.program import PROGRAM, ProgramCommand, missing_dashes, spec_of
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.errors import NoDaemon
from queuectl_client.jobs.options import COMMAND_LINE, JOB
from queuectl_client.render.no_workers import say_if_none
from queuectl_client.render.remarks import remark

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_protocol.jobs import Attempt, Job
    from queuectl_protocol.messages import JobLogs


class Stopped(BaseException):
    """SIGINT or SIGTERM. Not an Exception: nothing on the way up may take it for an error of its own."""


class Signals:
    """Turns SIGINT and SIGTERM into Stopped, but not while they are held."""

    def __init__(self) -> None:
        self.received = 0
        """The number of the first signal that came, 0 if none has."""
        self._held = False
        self._pending = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = self.received or number
        if self._held and not self._pending:
            self._pending = True  # a second one does not wait
            return
        raise Stopped

    @contextmanager
    def installed(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the first signal back until the end: what is asked for in here must not be left half done."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise Stopped


@click.command(
    cls=ProgramCommand,
    epilog=examples(
        "queuectl run -- make test",
        "queuectl run --max-retries 1 --timeout 5m -c './backup.sh && ./verify.sh'",
    ),
)
@click.argument("words", metavar="-- PROG ARG...", nargs=-1)
@options(*COMMAND_LINE, *JOB)
@pass_session
@click.pass_context
def run(
    ctx: click.Context,
    session: Session,
    /,
    *,
    words: tuple[str, ...],
    command: str | None,
    cwd: str | None,
    env: tuple[str, ...],
    clean_env: bool,
    **shared: Any,
) -> None:
    """Enqueue a job, show its output as it comes, and exit with its exit code (128 + n after signal n).

    The output of all attempts is passed through as it is, colours and all. Ctrl-C (or SIGTERM) cancels the job and
    waits for its end; a second one does not wait.
    """
    argv: list[str] | None = ctx.meta[PROGRAM]
    if words:
        raise missing_dashes(ctx, words)
    if (argv is None) == (command is None):
        raise click.UsageError("give a program after `--`, or -c COMMAND", ctx)
    spec = spec_of(argv, command, cwd, env, clean_env, shared)
    signals = Signals()
    enqueued = False
    with session.client() as client, signals.installed():
        follower = _Follower(client, spec.id or "", signals)
        try:
            # Held, so that a cancel can't overtake the job that it is meant for.
            with signals.held():
                client.enqueue_spec(spec)
                enqueued = True
            say_if_none(client, f"job {spec.id} waits, and no worker runs")
            job = follower.follow()
        except Stopped:
            ctx.exit(_stop(client, follower, signals))
        except NoDaemon as error:
            if not enqueued:
                raise
            remark(error.message, error.hint)
            remark(
                f"job {spec.id} goes on",
                f"`queuectl logs -f {spec.id}` shows its output, and `queuectl wait {spec.id}` waits for its end, "
                "when the daemon is back",
            )
            ctx.exit(error.exit_status)
    ctx.exit(_status_of(job))


class _Follower:
    """Shows a job's output, attempt after attempt, until it has ended; after an interruption it can go on."""

    def __init__(self, client: Client, job_id: str, signals: Signals) -> None:
        self._client = client
        self._signals = signals
        self.job_id = job_id
        self._attempt = 1
        self._offset = 0

    def follow(self) -> Job:
        """Returns the job as it ended."""
        from msgspec import UNSET  # noqa: PLC0415 - loaded by now

        from queuectl_protocol.jobs import ENDED  # noqa: PLC0415 - loaded by now

        while True:
            pieces = self._client.log_pieces(self.job_id, attempt=self._attempt, follow=True, offset=self._offset)
            for piece in pieces:
                # Held, so that no piece is shown a second time when it goes on after a signal.
                with self._signals.held():
                    write_output(piece)
                    self._offset = piece.next
            job = self._client.get(self.job_id)
            history = [] if job.history is UNSET else job.history
            # Where retries are quick, the job may have ended while there are attempts that were not shown yet.
            if job.state in ENDED and not any(one.number > self._attempt for one in history):
                return job
            self._tell(job, history)
            self._attempt += 1
            self._offset = 0

    def _tell(self, job: Job, history: Sequence[Attempt]) -> None:
        """Say how an attempt ended, and when the next one begins."""
        from queuectl_client.render.times import span  # noqa: PLC0415
        from queuectl_client.render.views import hint_for, now  # noqa: PLC0415

        made = next((one for one in history if one.number == self._attempt), None)
        if made is None or made.outcome is None:
            return
        if made.outcome == "interrupted" and made.error is None:
            remark(f"attempt {made.number} was interrupted by a shutdown; it does not count")
            return
        reason = made.error or (f"exit code {made.exit_code}" if made.exit_code is not None else "")
        wait = (job.run_at - now()).total_seconds() if made is history[-1] else 0
        # The reason of a timeout says all: that it "timed out after 5 s".
        ended = f" {reason}" if made.outcome == "timeout" and reason else f" {made.outcome}: {reason}".rstrip(": ")
        remark(
            f"attempt {made.number}{ended}" + (f"; next in {span(wait)}" if wait > 0 else ""),
            hint_for(made.error) if made is history[0] else "",
        )


def write_output(piece: JobLogs) -> None:
    """Write a piece of an attempt's output to standard output, as it is."""
    from queuectl_client.client import output_of  # noqa: PLC0415 - loaded by now

    if piece.dropped:
        remark("the log reached its limit: output before this was dropped")
    sys.stdout.buffer.write(output_of(piece))
    sys.stdout.buffer.flush()


def _stop(client: Client, follower: _Follower, signals: Signals) -> int:
    """Cancel the job, show what it still says until it has ended, and return what to exit with."""
    from queuectl_protocol.errors import ProtocolError  # noqa: PLC0415 - loaded by now

    own = 128 + signals.received
    try:
        remark(f"cancelling job {follower.job_id}; press Ctrl-C again not to wait for its end")
        try:
            client.cancel([follower.job_id])
        except ProtocolError as error:
            # It ended in this moment, or was refused before.
            if error.kind not in {"invalid_state", "not_found"}:
                raise
            if error.kind == "not_found":
                return own
        job = follower.follow()
    except (Stopped, NoDaemon) as error:
        if isinstance(error, NoDaemon):
            remark(error.message, error.hint)
        remark(f"job {follower.job_id} may still be running", f"`queuectl show {follower.job_id}` tells")
        return own if isinstance(error, Stopped) else error.exit_status
    return own if job.state == "cancelled" else _status_of(job)


def _status_of(job: Job) -> int:
    """What to exit with, after the job has ended; if there is more to say than the number, it is said."""
    from queuectl_client.render.views import ended_sentence, hint_for  # noqa: PLC0415 - loaded by now

    if job.state != "completed":
        remark(ended_sentence(job), hint_for(job.error))
    return exit_status_of(job.state, job.exit_code)


def exit_status_of(state: str, exit_code: int | None) -> int:
    """Never 0 for a job that did not complete."""
    return 0 if state == "completed" else exit_code or 1
