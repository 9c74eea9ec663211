"""`queuectl completion`: what a shell needs to complete commands, options, job ids, settings and workers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from queuectl_client.options import examples


@click.command(
    epilog=examples(
        'eval "$(queuectl completion bash)"    # in ~/.bashrc',
        'eval "$(queuectl completion zsh)"     # in ~/.zshrc',
        "queuectl completion fish > ~/.config/fish/completions/queuectl.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices are click's own
    click.echo(kind(ctx.find_root().command, {}, "queuectl", "_QUEUECTL_COMPLETE").source())
