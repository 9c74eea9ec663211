"""`queuectl enqueue`: jobs as JSON, as a command line, or as a file of JSON lines."""

from __future__ import annotations

import os
from typing import Any

import click

from queuectl_client.commandline.parameters import examples, options
from queuectl_client.commandline.program import PROGRAM, ProgramCommand, missing_dashes, spec_of
from queuectl_client.commandline.session import Session, pass_session
from queuectl_client.jobs.options import ENQUEUE
from queuectl_client.render.ids import print_ids
from queuectl_client.verbs import say_if_nothing_runs


@click.command(
    cls=ProgramCommand,
    epilog=examples(
        "queuectl enqueue -- convert in.png out.jpg",
        "queuectl enqueue --priority 5 --timeout 10m -c 'make && make install'",
        """queuectl enqueue '{"id": "job1", "command": "echo Hello"}'""",
        """queuectl enqueue '[{"command": "true"}, {"argv": ["echo", "a b"]}]'""",
        "queuectl enqueue --file jobs.jsonl",
        "generate-jobs | queuectl enqueue --file - --queue night",
    ),
)
@click.argument("words", metavar="[JSON | -- PROG ARG...]", nargs=-1)
@options(*ENQUEUE)
@pass_session
@click.pass_context
def enqueue(
    ctx: click.Context,
    session: Session,
    /,
    *,
    words: tuple[str, ...],
    command: str | None,
    cwd: str | None,
    env: tuple[str, ...],
    clean_env: bool,
    file: str | None,
    as_json: bool,
    **shared: Any,
) -> None:
    """Enqueue jobs, and print their ids.

    A command line (-c, or after --) runs as if typed here: in this directory, with this environment. JSON runs as it
    says: fields are command or argv, id, queue, priority, max_retries, timeout, delay (seconds), label, cwd, env.
    An array is enqueued wholly or not at all. With JSON and --file, options stand in for fields that are not given.
    """
    argv: list[str] | None = ctx.meta[PROGRAM]
    if sum((bool(words), argv is not None, command is not None, file is not None)) != 1:
        raise click.UsageError(_what_is_wrong(words, argv, command, file), ctx)
    if words and words[0].lstrip()[:1] not in {"{", "["}:
        raise missing_dashes(ctx, words)
    if words and len(words) > 1:
        raise click.UsageError("one JSON text is expected; put several jobs into an array: '[{...}, {...}]'", ctx)
    if (words or file is not None) and (cwd is not None or env or clean_env):
        raise click.UsageError("--cwd, --env and --clean-env belong to a command line; in JSON there are fields", ctx)
    if file is not None:
        if shared["id"] is not None:
            raise click.UsageError("--id is for one job; in a file, each line may have its `id`", ctx)
        from queuectl_client.commands.enqueue_file import enqueue_file  # noqa: PLC0415 - only for bulk

        with session.client() as client:
            enqueue_file(client, file, shared, socket=session.socket, as_json=as_json)
            say_if_nothing_runs(client)
        return
    if words:
        from queuectl_client.jobs import specs  # noqa: PLC0415 - usage errors need not pay for the wire

        text = os.fsencode(words[0])
        if shared["id"] is not None and text.lstrip().startswith(b"["):
            raise click.UsageError("--id is for one job; in an array, each object may have its `id`", ctx)
        jobs = specs.from_json(text, shared)
    else:
        jobs = [spec_of(argv, command, cwd, env, clean_env, shared)]
    with session.client() as client:
        print_ids(client.enqueue_all(jobs), as_json=as_json)
        say_if_nothing_runs(client)


def _what_is_wrong(words: tuple[str, ...], argv: list[str] | None, command: str | None, file: str | None) -> str:
    if not words and argv is None and command is None and file is None:
        return "nothing to enqueue: give JSON, -c COMMAND, --file FILE, or a program after `--`"
    return "give one of: JSON, -c COMMAND, --file FILE, a program after `--`"
