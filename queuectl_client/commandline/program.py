"""Commands that end in `-- PROG ARG...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import NoSuchOption

from queuectl_client.jobs.as_typed import fields_of
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


def spec_of(
    argv: Sequence[str] | None,
    command: str | None,
    cwd: str | None,
    env: Sequence[str],
    clean_env: bool,
    shared: Mapping[str, Any],
) -> JobSpec:
    """The job that was typed; see `as_typed.fields_of`.

    Raises:
        BadRequest: it can't be sent, or a field can't be; the message names it.
    """
    from queuectl_client.jobs import specs  # noqa: PLC0415 - usage errors need not pay for the wire

    fields, left_out = fields_of(argv, command, cwd, env, clean_env, shared)
    if left_out:
        remark(f"not UTF-8, and so left out of the job's environment: {', '.join(left_out)}")
    return specs.from_fields(fields)
