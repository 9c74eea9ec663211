"""Options and arguments that commands share, and what the shell completes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from queuectl_client.commandline.session import Session
from queuectl_client.jobs.durations import parse_duration
from queuectl_client.jobs.options import JSON, Option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from queuectl_client.client import Client

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _ToSeconds = click.ParamType[float]
    _ToText = click.ParamType[str]
else:  # generic only for the type checker, in some of the versions that are allowed
    _ToSeconds = _ToText = click.ParamType

COMPLETED_JOBS = 500
"""Of so many jobs, the newest, the shell completes ids."""
COMPLETION_SECONDS = 1.0
"""A shell that waits for Tab is not kept longer by any one answer."""


def examples(*lines: str) -> str:
    """The end of a help text: examples, one a line, not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Duration(_ToSeconds):
    """Seconds, or a number with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _FromDaemon(_ToText):
    """Text that the shell completes by asking the daemon; without one it completes nothing."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only to complete

        del param
        socket = ctx.find_root().params.get("socket")
        try:
            with Session(socket).client(patience=0, timeout=COMPLETION_SECONDS) as client:
                return [
                    CompletionItem(text, help=meaning)
                    for text, meaning in self.items(client)
                    if text.startswith(incomplete)
                ]
        except Exception:  # noqa: BLE001 - a shell in the middle of a line has no use for any error
            return []

    def items(self, client: Client) -> Iterable[tuple[str, str]]:
        """What there is, each with its meaning."""
        raise NotImplementedError


class JobRef(_FromDaemon):
    """A job's id or a unique prefix of it."""

    name = "job"

    def __init__(self, *states: str) -> None:
        """`states`: complete only jobs that are in one of them; none given is all."""
        self._states = states

    def items(self, client: Client) -> Iterable[tuple[str, str]]:
        from queuectl_client.render.safe import visible  # noqa: PLC0415
        from queuectl_client.render.views import command_of  # noqa: PLC0415 - only to complete

        for job in client.list(limit=COMPLETED_JOBS):
            if not self._states or job.state in self._states:
                yield job.id, f"{job.state} {visible(command_of(job))[:60]}"


class QueueName(_FromDaemon):
    """The name of a queue; any will do."""

    name = "name"

    def items(self, client: Client) -> Iterable[tuple[str, str]]:
        return [(name, "") for name in dict.fromkeys(job.queue for job in client.list(limit=COMPLETED_JOBS))]


class FileName(_ToText):
    """The name of a file or a directory, which the shell completes. Whether it is there is not looked at."""

    name = "file"

    def __init__(self, kind: Literal["file", "dir"] = "file") -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only to complete

        del ctx, param
        return [CompletionItem(incomplete, type=self._kind)]


class SettingKey(_FromDaemon):
    """The name of a setting."""

    name = "key"

    def items(self, client: Client) -> Iterable[tuple[str, str]]:
        return [(setting.key, setting.description) for setting in client.settings()]


class WorkerRef(_FromDaemon):
    """A worker's id."""

    name = "worker"

    def items(self, client: Client) -> Iterable[tuple[str, str]]:
        return [(worker.id, f"{worker.state} PID {worker.pid}") for worker in client.workers().workers]


def options(*table: Option) -> Callable[[F], F]:
    """The options of the table, in this order."""

    def decorate(command: F) -> F:
        for option in reversed(table):
            command = _decorator(option)(command)
        return command

    return decorate


def _decorator(option: Option) -> Callable[[F], F]:
    """The decorator that makes an option of the table one of click's."""
    given: dict[str, Any] = {"help": option.help}
    if option.metavar is not None:
        given["metavar"] = option.metavar
    if option.default is not None:
        given |= {"default": option.default, "show_default": True}
    match option.kind:
        case "flag":
            given["is_flag"] = True
        case "period":
            given |= {"is_flag": False, "flag_value": "1", "type": click.FloatRange(min=0.1, max=86_400)}
        case _:
            given |= {"type": _type(option), "multiple": option.multiple}
    return click.option(*option.flags, option.name, **given)


def _type(option: Option) -> click.ParamType[Any]:
    match option.kind:
        case "queue":
            return QueueName()
        case "file":
            return FileName()
        case "directory":
            return FileName("dir")
        case "integer":
            return click.INT if option.least is None else click.IntRange(min=option.least)
        case "time":
            return Duration()
        case "choice":
            return click.Choice(option.words)
    return click.STRING


as_json = options(JSON)


def jobs_argument(*states: str, required: bool = True) -> Callable[[F], F]:
    """JOB..., each an id or a unique prefix of one."""
    return click.argument("jobs", metavar="JOB...", nargs=-1, required=required, type=JobRef(*states))
