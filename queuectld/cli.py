"""The queuectld command: a flag wins over the environment, that over the config file, that over the default."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from queuectl_protocol import paths
from queuectl_protocol.messages import MAX_WORKERS
from queuectl_protocol.version import __version__
from queuectld import daemon, start
from queuectld.host import journal
from queuectld.host.start_error import StartError
from queuectld.process_tree import cgroups
from queuectld.store.base import StorageError

_KEYS = ("state_dir", "socket", "workers", "log_level", "log_format", "socket_group", "cgroup")
_CONFIG = "queuectld.config"
"""The config file that was read, among what click's context remembers."""


def _read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Make the config file's values the defaults of the options."""
    path = value or Path(paths.config_file(os.environ))
    try:
        with path.open("rb") as file:
            content: dict[str, Any] = tomllib.load(file)
    except FileNotFoundError:
        if value is None:
            return None
        raise click.BadParameter(f"there is no file {path}") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} can't be read: {error}") from None
    unknown = sorted(set(content) - set(_KEYS))
    if unknown:
        raise click.BadParameter(f"{path} has an unknown key {unknown[0]!r}; it may have {', '.join(_KEYS)}")
    for key, found in content.items():
        kind = int if key == "workers" else str
        if type(found) not in (kind, str):  # text in place of a number is told by the option itself
            article = "a whole number" if kind is int else "a string"
            raise click.UsageError(f"{path}: the value of {key} must be {article}", context)
    context.meta[_CONFIG] = path
    context.default_map = {**(context.default_map or {}), **content}
    return path


def _check_cgroup(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not cgroups.is_usable(value):
        raise click.BadParameter(
            f"{value} is not a cgroup v2 directory in which this user can make groups and kill them"
        )
    return value


class _Command(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say of a wrong value from the config file where it stands: click would name a flag that nobody gave."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = error.param.name if error.param is not None else None
            if name is None or ctx.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
                raise
            raise click.UsageError(f"{ctx.meta[_CONFIG]}: the value of {name} is wrong: {error.message}", ctx) from None


_EXAMPLES = """\b
Examples:
  queuectld --workers 4
  queuectld --state-dir /tmp/q --socket /tmp/q/sock --log-format json
  QUEUECTL_WORKERS=2 queuectld
"""


@click.command(
    cls=_Command,
    epilog=_EXAMPLES,
    context_settings={"auto_envvar_prefix": "QUEUECTL", "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with the same keys as these options (state_dir, socket ...). "
    "[default: queuectl/queuectld.toml in the user's config directory, if it is there]",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Database, logs, locks. [default: $STATE_DIRECTORY, else the user's state directory]",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to listen. [default: systemd's socket, else $RUNTIME_DIRECTORY/queuectl.sock, "
    "else the user's runtime directory]",
)
@click.option(
    "--workers",
    type=click.IntRange(0, MAX_WORKERS),
    help="Size of the pool of workers from now on. [default: as it was last asked for; 0 at first]",
)
@click.option("--log-level", type=click.Choice(journal.LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(journal.FORMATS), default="human", show_default=True)
@click.option("--socket-group", metavar="GROUP", help="Its members may use the daemon too: the socket gets mode 0660.")
@click.option(
    "--cgroup",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    callback=_check_cgroup,
    help="A cgroup v2 directory in which each attempt gets a group of its own. "
    "[default: the one that systemd has delegated, else none]",
)
@click.option(
    "--check",
    is_flag=True,
    allow_from_autoenv=False,
    help="Start nothing: import everything, read the configuration, try to open the database and to migrate a copy of "
    "it, and say whether a daemon could be started so. A running one is not disturbed. `reload` does this by itself.",
)
@click.option(
    "--version", is_flag=True, allow_from_autoenv=False, help="Read the configuration, print the version, and exit."
)
def command(
    state_dir: Path | None,
    socket: Path | None,
    workers: int | None,
    log_level: str,
    log_format: journal.Format,
    socket_group: str | None,
    cgroup: Path | None,
    check: bool,
    version: bool,
) -> NoReturn:
    """The queuectl daemon, in the foreground: owns the queue, runs the workers, answers `queuectl`.

    SIGTERM or SIGINT: take no new work, let running attempts finish for up to `shutdown_timeout` seconds, then end them
    and put their jobs back; a second one skips the wait. SIGHUP: re-execute in place (after an upgrade); running jobs
    go on. To run it in the background use `queuectl daemon start`, or systemd (`queuectl service install`).
    """
    if version:  # not before the configuration was read: a daemon of 0.1 takes this answer for "it can be started"
        click.echo(f"queuectld, version {__version__}")
        sys.exit(0)
    options = daemon.Options(
        # Absolute: workers start elsewhere.
        state_dir=(state_dir or Path(paths.state_dir(os.environ))).absolute(),
        socket=socket.absolute() if socket is not None else None,
        workers=workers,
        socket_group=socket_group,
        cgroup=cgroup,
    )
    if check:
        click.echo(daemon.check(options))
        sys.exit(0)
    journal.set_up(log_level, log_format)
    sys.exit(daemon.run(options))


def main() -> NoReturn:
    """Exit status: 0 stopped as asked; 1 can't start, or the storage failed; 2 wrong usage."""
    start.unblock_signals(but=daemon.HELD_BACK)
    try:
        command.main(prog_name="queuectld")
    except StartError as error:
        journal.say_at_the_end(f"queuectld: {error}", *([f"  hint: {error.hint}"] if error.hint else []))
        sys.exit(1)
    except StorageError as error:
        journal.say_at_the_end(f"queuectld: {error}")
        sys.exit(1)
