"""The queuectl command: a table of subcommands, each imported only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from queuectl_client.commandline.session import Session
from queuectl_client.render import output
from queuectl_client.render.remarks import remark
from queuectl_protocol.version import __version__

_NO_ARGUMENTS: tuple[type[click.ClickException], ...] = tuple(
    kind for kind in [getattr(click.exceptions, "NoArgsIsHelpError", None)] if kind is not None
)
"""How click 8.2 and later ask for the help of a group that was called with nothing; before, it is printed at once."""


class Entry(NamedTuple):
    """A subcommand: where it is found, and its one line in `queuectl --help`."""

    module: str
    attribute: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Jobs": {
        "enqueue": Entry("enqueue", "enqueue", "Enqueue jobs: a command line, JSON, or a file of them."),
        "run": Entry("run", "run", "Enqueue a job, show its output, exit with its exit code."),
        "list": Entry("list", "list_jobs", "List jobs, newest first."),
        "show": Entry("show", "show", "Show everything about one job."),
        "logs": Entry("logs", "logs", "Print an attempt's output."),
        "wait": Entry("wait", "wait", "Wait until jobs have ended."),
        "cancel": Entry("cancel", "cancel", "Cancel jobs; running ones are ended."),
        "retry": Entry("retry", "retry", "Run ended jobs again."),
        "dlq": Entry("dlq", "dlq", "The dead letter queue: list, retry, purge."),
    },
    "System": {
        "status": Entry("status", "status", "Counts of all states, and the workers."),
        "worker": Entry("worker", "worker", "Start, stop and list workers."),
        "config": Entry("config", "config", "Show and change settings."),
        "daemon": Entry("daemon", "daemon", "Start, stop and reload a daemon without systemd."),
        "backup": Entry("backup", "backup", "Copy the queue to a file, while it works."),
        "service": Entry("service", "service", "Install queuectld as a systemd service."),
        "completion": Entry("completion", "completion", "Let your shell complete commands."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """Subcommands from the table; errors as sentences and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"queuectl_client.commands.{entry.module}"), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        command.short_help = entry.summary
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib  # noqa: PLC0415 - only for the error

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            raise click.UsageError(
                f"there is no command {name!r}" + (f"; did you mean `{close[0]}`?" if close else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx  # the table says it all, and nothing is imported
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only to complete

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _broken_pipe_apart():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _broken_pipe_apart():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but that errors are one sentence with a hint, and exit statuses those of the contract."""

        def run() -> Any:
            if os.environ.get("_QUEUECTL_COMPLETE", "").endswith("_line"):
                from queuectl_client.system import completion_scripts  # noqa: PLC0415 - only to complete

                return completion_scripts.answer(self)
            return super(LazyGroup, self).main(args, prog_name or "queuectl", complete_var, False, **extra)

        if not standalone_mode:
            return run()
        status = _status_of(run)
        sys.exit(output.flushed(status))


@contextmanager
def _broken_pipe_apart() -> Iterator[None]:
    """A reader that went away early gets a status of its own: of it click makes 1, which means a refusal."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(output.BROKEN_PIPE) from None


def _status_of(run: Any) -> int:
    """Run the command, tell people what went wrong, and say what to exit with."""
    try:
        answer = run()
    except click.ClickException as error:
        _complain_usage(error)
        return error.exit_code
    except click.Abort as error:
        # click turns Ctrl-C into this; a "no", and the end of the input, to a question too.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return output.INTERRUPTED
        if isinstance(error.__context__, KeyboardInterrupt):
            sys.stderr.write("\n")  # at a question, the terminal's ^C is still on its line
            return output.INTERRUPTED
        return output.REFUSED
    except KeyboardInterrupt:  # while a shell waits for completions, where click does not expect it
        return output.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever it is
        return _complain(error)
    return answer if isinstance(answer, int) else output.DONE


def _complain(error: Exception) -> int:
    """Say what is wrong in a sentence, if it is something that can go wrong; a fault in this program goes on up."""
    from queuectl_client.errors import ClientError  # noqa: PLC0415
    from queuectl_protocol.errors import ProtocolError  # noqa: PLC0415 - only for errors

    if isinstance(error, ClientError):
        remark(error.message, error.hint)
        return error.exit_status
    if isinstance(error, ProtocolError):
        remark(error.message, error.hint)
        return output.REFUSED
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        remark(f"{named}{error.strerror or error}")
        return output.REFUSED
    if "QUEUECTL_DEBUG" in os.environ:
        raise error
    remark(
        f"a fault in this program: {type(error).__name__}: {error}",
        "please report it; with QUEUECTL_DEBUG=1 in the environment it says where",
    )
    return output.REFUSED


def _complain_usage(error: click.ClickException) -> None:
    if isinstance(error, _NO_ARGUMENTS):
        click.echo(error.format_message(), err=True)  # a whole help text, not a sentence
        return
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None and not error.ctx.resilient_parsing:
        hint = f"`{error.ctx.command_path} --help` shows how it is used"
    message = error.format_message().rstrip(".")
    remark(message[:1].lower() + message[1:] if message[1:2].islower() else message, hint)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(f"queuectl {__version__}")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path, dir_okay=True),
    metavar="PATH",
    help="The daemon's socket. Default: $QUEUECTL_SOCKET; else that of the user's own daemon, "
    "wherever it listens; else /run/queuectl/queuectl.sock.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print it.")
@click.pass_context
def cli(ctx: click.Context, socket: Path | None) -> None:
    """A job queue on this machine: enqueue commands, and workers run them.

    Exit status: 0 done; 1 the daemon said no; 2 wrong usage; 3 no daemon reachable.
    """
    if socket is not None and not str(socket).strip("."):
        raise click.UsageError("--socket: the path of a socket is expected", ctx)
    ctx.obj = Session(socket)


def main() -> NoReturn:
    """The entry point of the `queuectl` command."""
    output.prepare()
    cli.main(prog_name="queuectl")
    raise AssertionError("unreachable: main() exits")  # pragma: no cover


def fail(error: Exception) -> NoReturn:
    """Say what is wrong after a call that did without click, and exit as after one by click."""

    def run() -> NoReturn:
        raise error

    sys.exit(output.flushed(_status_of(run)))
