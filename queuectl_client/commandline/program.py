"""Jobs given as a command line: they run as if typed here, in this directory and with this environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.exceptions import NoSuchOption

from queuectl_client.render.remarks import remark

if TYPE_CHECKING:
    from queuectl_protocol.jobs import JobSpec

PROGRAM = "queuectl_client.program"
"""Under this key of `Context.meta`: what came after `--`, or None where there was no `--`."""


class ProgramCommand(click.Command):
    """A command that ends in `-- PROG ARG...`; click by itself does not tell whether there was a `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[PROGRAM] = args[:at], args[at + 1 :]
            return super().parse_args(ctx, args)
        ctx.meta[PROGRAM] = None
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            # `enqueue ls -l`: it is ls that -l belongs to.
            if given and given[0][:1] not in {"-", "{", "["}:
                raise missing_dashes(ctx, given) from None
            raise error from None


def missing_dashes(ctx: click.Context, words: Sequence[str]) -> click.UsageError:
    """What to say of words that are neither an option nor a job in JSON."""
    import json  # noqa: PLC0415 - only for the error
    import shlex  # noqa: PLC0415 - only for the error

    why = ""
    if ctx.info_name == "enqueue":
        try:
            json.loads(words[0])
        except ValueError:
            why = f"{words[0]!r} is not JSON; "
        else:
            why = f'{words[0]!r} is JSON, but not a job, which looks like {{"command": "echo hello"}}; '
    return click.UsageError(f"{why}put `--` before a program: queuectl {ctx.info_name} -- {shlex.join(words)}", ctx)


class CommandLine(NamedTuple):
    """What was typed about a job that is given as a command line."""

    argv: Sequence[str] | None
    command: str | None
    cwd: str | None
    env: Sequence[str]
    clean_env: bool

    def spec(self, **shared: Any) -> JobSpec:
        """The job, to be run as if typed here.

        Args:
            **shared: fields of `JobSpec` that all ways to enqueue share.

        Raises:
            click.UsageError: it can't be run, or not be sent.
            BadRequest: a field can't be; the message names it.
        """
        from queuectl_client.jobs import specs  # noqa: PLC0415 - usage errors need not pay for the wire

        for name, value in shared.items():
            if isinstance(value, str):
                _text(value, f"--{name}")
        given = dict(_variable(text) for text in self.env)
        variables = given if self.clean_env else _environment() | given
        return specs.from_fields(
            {
                **shared,
                "argv": None if self.argv is None else [_text(word, f"argument {word!r}") for word in self.argv],
                "command": None if self.command is None else _text(self.command, "the command"),
                "cwd": self._directory(),
                "env": variables if variables or not self.clean_env else None,
                "exact_env": not self.clean_env,
                "env_given": [*given] if given and not self.clean_env else None,
            }
        )

    def _directory(self) -> str:
        try:
            path = os.path.abspath(self.cwd or ".")  # noqa: PTH100 - resolve() would call a symbolic link by another name
            return _text(path, "the current directory" if self.cwd is None else "--cwd")
        except FileNotFoundError:
            raise click.UsageError("the current directory does not exist any more; name one with --cwd") from None


def _text(value: str, what: str) -> str:
    """The same, if it can be sent: JSON is UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{what} is not UTF-8; put it into a script, and enqueue that") from None
    return value


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = _text(text, f"--env {text!r}").partition("=")
    if not sign or not name:
        raise click.UsageError(f"--env {text!r}: expected NAME=VALUE")
    return name, value


def _environment() -> dict[str, str]:
    """This process's environment; what is not UTF-8 can't be sent, and is left out with a remark."""
    variables: dict[str, str] = {}
    skipped: list[str] = []
    for name, value in _as_it_was().items():
        try:
            f"{name}={value}".encode()
        except UnicodeEncodeError:
            skipped.append(name)
        else:
            variables[name] = value
    if skipped:
        remark(f"not UTF-8, and so left out of the job's environment: {', '.join(sorted(skipped))}")
    return variables


def _as_it_was() -> dict[str, str]:
    """This process's environment as it was started with.

    Where the locale was C (in a cron job, say), the interpreter has changed LC_CTYPE to one with UTF-8 (PEP 538),
    which no program that is typed would find.
    """
    variables = dict(os.environ)
    if variables.get("LC_CTYPE") in {"C.UTF-8", "C.utf8", "UTF-8"}:
        try:
            started_with = Path("/proc/self/environ").read_bytes().split(b"\0")
        except OSError:
            return variables
        given = next((entry for entry in started_with if entry.startswith(b"LC_CTYPE=")), None)
        if given is None:
            del variables["LC_CTYPE"]
        else:
            variables["LC_CTYPE"] = os.fsdecode(given.partition(b"=")[2])
    return variables
