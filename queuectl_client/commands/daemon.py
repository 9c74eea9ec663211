"""`queuectl daemon`: a daemon without systemd."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import as_json, examples
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.errors import ClientError, NoDaemon
from queuectl_client.render.no_workers import say_if_none
from queuectl_client.wire import state_files
from queuectl_protocol import paths

if TYPE_CHECKING:
    from queuectl_client.client import Client
    from queuectl_protocol.messages import ServerInfo, WorkerListResult

LOOK_SECONDS = 0.05
"""Between two looks at a daemon that is changing."""
RELOAD_SECONDS = 360.0
"""The daemon has the installed version checked before, for up to 300 s where a large database is to be migrated."""
ACTIVE = frozenset({"starting", "idle", "busy", "detached"})
"""States of workers that are in the pool: the others are on their way out of it."""
LOG_LEVELS = ("debug", "info", "warning", "error")


_of_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The daemon that keeps its state there, wherever it listens.",
)


@click.group()
def daemon() -> None:
    """Start, stop and reload a daemon, where systemd does not do it (see `queuectl service`)."""


@daemon.command(
    epilog=examples(
        "queuectl daemon start",
        "queuectl daemon start --workers 4",
        "queuectl --socket /tmp/q/sock daemon start --state-dir /tmp/q/state",
    )
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="State directory, for its database, logs and locks.",
)
@click.option(
    "--workers", type=click.IntRange(0, 4096), metavar="N", help="So many workers; else as many as last time."
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much it writes to its log.")
@click.option("--log-format", type=click.Choice(["human", "json"]), help="How it writes its log.")
@pass_session
def start(
    session: Session, *, state_dir: Path | None, workers: int | None, log_level: str | None, log_format: str | None
) -> None:
    """Start a daemon in the background, and return when it is ready. It logs to DIR/daemon.log."""
    from queuectl_client.system import background  # noqa: PLC0415 - `--help` need not pay for it

    options = {"--workers": workers, "--log-level": log_level, "--log-format": log_format}
    extra = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    info, fresh = background.start(session.socket, state_dir, extra)
    click.echo(f"{'Started' if fresh else 'Already running'}: PID {info.pid}, socket {info.socket}")
    with Session(Path(info.socket)).client() as client:
        if workers is not None and not fresh:
            _set_pool(client, workers)
        sys.stdout.flush()
        say_if_none(client, "no worker runs, so no job will")


@daemon.command(epilog=examples("queuectl daemon stop", "queuectl daemon stop --now"))
@_of_state_dir
@click.option("--now", is_flag=True, help="Do not wait for running jobs: end them; they go back to pending.")
@pass_session
def stop(session: Session, *, state_dir: Path | None, now: bool) -> None:
    """Stop the daemon, and return when it is gone. Running jobs get `shutdown_timeout` seconds to finish."""
    try:
        with _client(session, state_dir) as client:
            process, info = _process(client)
            pid = info.pid
    except NoDaemon:
        found = _unreachable(session, state_dir)
        if found is None:
            raise
        pid, process = found
    try:
        _signal(process, signal.SIGTERM, pid)
        if now:
            # Two different signals: two of the same, sent at once, can arrive as one.
            _signal(process, signal.SIGINT, pid)
        state_files.wait_for_end(process)
    finally:
        os.close(process)
    click.echo(f"Stopped: PID {pid}")


@daemon.command(epilog=examples("queuectl daemon status", "queuectl daemon status --json"))
@_of_state_dir
@as_json
@pass_session
def status(session: Session, *, state_dir: Path | None, as_json: bool) -> None:
    """Say which daemon answers. Exit status 3 if none does."""
    with _client(session, state_dir) as client:
        info = client.info()
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(info)
        return
    from queuectl_client.render import people, times, views  # noqa: PLC0415 - one of two ways

    facts = {
        "state": "stopping" if info.stopping else "running",
        "version": f"{info.version} (protocol {info.protocol})",
        "pid": str(info.pid),
        "up": f"since {times.moment(info.started_at, views.now())}",
        "reloads": str(info.generation),
        "socket": info.socket,
        "state dir": info.state_dir,
        "containment": info.containment,
    }
    columns = (people.Column(""), people.Column("", flexible=True, wrap=True))
    rows = [[people.Cell(f"{name}:", "dim"), people.Cell(value)] for name, value in facts.items()]
    people.draw([people.Table(columns, rows, heading=False)])


@daemon.command(epilog=examples("queuectl daemon reload"))
@_of_state_dir
@pass_session
def reload(session: Session, *, state_dir: Path | None) -> None:
    """Let the daemon change to the installed version in place: running jobs go on, no client is refused."""
    with _client(session, state_dir, patience=10.0) as client:
        process, before = _process(client)
        try:
            _refuse_if_stopping(before)
            _signal(process, signal.SIGHUP, before.pid)
        finally:
            os.close(process)
        deadline = time.monotonic() + RELOAD_SECONDS
        while (after := client.info()).generation == before.generation and after.started_at == before.started_at:
            if after.reloads_refused != before.reloads_refused:
                raise ClientError(f"the daemon goes on as it is: {after.reload_refusal}")
            _refuse_if_stopping(after)
            if time.monotonic() > deadline:
                raise ClientError(f"the daemon has not reloaded within {RELOAD_SECONDS:g} s", "its log says why")
            time.sleep(LOOK_SECONDS)
            client.close()  # a connection from before might be kept by what is to be replaced
    click.echo(f"Reloaded: PID {after.pid}, version {after.version}")


def _refuse_if_stopping(info: ServerInfo) -> None:
    """A daemon that is stopping does not reload any more."""
    if info.stopping:
        raise ClientError(
            f"the daemon (PID {info.pid}) is stopping, so it does not reload",
            "`queuectl daemon start` starts the installed version when it is gone",
        )


def _set_pool(client: Client, count: int) -> None:
    """Bring the pool of a running daemon to `count` workers; those that are busy are the last to go."""
    found = client.workers()
    if count == found.desired:
        return
    if count > found.desired:
        started = client.start_workers(count - found.desired)
        if started.desired > count:  # somebody else asked for the same in this moment
            client.stop_workers(started.ids[: started.desired - count])
    else:
        _shrink(client, found, count)
    click.echo(f"Workers: {count} ({found.desired} before)")


def _shrink(client: Client, found: WorkerListResult, count: int) -> None:
    from queuectl_protocol.errors import ProtocolError  # noqa: PLC0415 - `--help` need not pay for the wire

    active = sorted((one for one in found.workers if one.state in ACTIVE), key=lambda one: one.job is not None)
    surplus = found.desired - count
    if surplus <= len(active):
        try:
            client.stop_workers([one.id for one in active[:surplus]])
        except ProtocolError as error:
            if error.kind != "not_found":  # one of them has ended since
                raise
        else:
            return
    # Workers that can't start, or are being replaced, have no ids to stop them by.
    client.stop_workers()
    if count:
        client.start_workers(count)


def _client(session: Session, state_dir: Path | None, patience: float = 0) -> Client:
    """For the daemon of the state directory if one was named, else for the one that answers."""
    if state_dir is None:
        return session.client(patience=patience)
    address = state_files.address_of(str(state_dir))
    if address is None:
        raise NoDaemon(f"no daemon runs on the state directory {state_dir}")
    return Session(Path(address)).client(patience=patience)


def _unreachable(session: Session, state_dir: Path | None) -> tuple[int, int] | None:
    """PID and descriptor of a daemon that runs and does not answer; None if none runs, or only a socket was named."""
    named = str(state_dir) if state_dir else state_files.named_state_dir(os.environ)
    if named is None and (session.socket is not None or os.environ.get("QUEUECTL_SOCKET")):
        return None
    return state_files.running_daemon(named or paths.state_dir(os.environ))


def _process(client: Client) -> tuple[int, ServerInfo]:
    """A descriptor of the daemon's process, and what it says of itself."""
    info = client.info()
    try:
        process = os.pidfd_open(info.pid)
    except ProcessLookupError:
        raise NoDaemon(f"the daemon (PID {info.pid}) is gone, or runs where its PID means nothing here") from None
    # If it still answers, the descriptor is of this process, and of none that got its PID later.
    try:
        still_there = client.info().pid == info.pid
    except BaseException:
        os.close(process)
        raise
    if not still_there:
        os.close(process)
        raise ClientError("the daemon was replaced in this moment; try again")
    return process, info


def _signal(process: int, number: signal.Signals, pid: int) -> None:
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        pass  # it has ended already
    except PermissionError:
        raise ClientError(
            f"not permitted to signal the daemon (PID {pid}): it runs as another user",
            "where it is a system service, `sudo systemctl stop queuectld` (or reload) does it",
        ) from None
