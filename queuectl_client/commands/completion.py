"""`queuectl completion`: what a shell needs to complete commands, options, file names, ids, queues and settings."""

from __future__ import annotations

import os
from pathlib import Path

import click

from queuectl_client.commandline.parameters import examples
from queuectl_client.system.completion_scripts import SCRIPTS, Shell


@click.group()
def completion() -> None:
    """Let your shell complete queuectl's commands: options, file names, jobs, queues, settings."""


@completion.command(epilog=examples("queuectl completion install", "queuectl completion install zsh"))
@click.argument("shell", type=click.Choice([*SCRIPTS]), required=False)
@click.pass_context
def install(ctx: click.Context, shell: Shell | None) -> None:
    """Put the completion where SHELL finds it at login; without SHELL, for your login shell. It can be done again."""
    from queuectl_client.system import completion_files  # noqa: PLC0415 - `--help` need not pay for it

    if shell is None:
        name = Path(os.environ.get("SHELL", "")).name
        shell = next((one for one in SCRIPTS if one == name), None)
    if shell is None:
        raise click.UsageError(f"say for which shell: {', '.join(SCRIPTS)}", ctx)
    for sentence in completion_files.install(shell, os.environ):
        click.echo(sentence)
    click.echo(f"Each {shell} that is started from now on completes queuectl's commands.")


def _printing(shell: Shell, use: str) -> click.Command:
    @click.command(
        shell, short_help=f"Print the script for {shell}.", epilog=examples(use), help=f"Print the script for {shell}."
    )
    def script() -> None:
        click.echo(SCRIPTS[shell], nl=False)

    return script


completion.add_command(_printing("bash", 'eval "$(queuectl completion bash)"'))
completion.add_command(_printing("zsh", 'eval "$(queuectl completion zsh)"'))
completion.add_command(_printing("fish", "queuectl completion fish | source"))
