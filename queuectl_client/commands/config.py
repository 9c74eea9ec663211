"""`queuectl config`: settings, kept by the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl_client.commandline.parameters import SettingKey, as_json, examples
from queuectl_client.commandline.session import Session, pass_session

if TYPE_CHECKING:
    from queuectl_protocol.messages import Setting


@click.group()
def config() -> None:
    """Show and change settings; a change is effective at once, and kept."""


@config.command("list", epilog=examples("queuectl config list", "queuectl config list --json"))
@as_json
@pass_session
def list_settings(session: Session, *, as_json: bool) -> None:
    """List all settings with their values."""
    with session.client() as client:
        found = client.settings()
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        for setting in found:
            print_json(setting)
        return
    from queuectl_client.render.people import Cell, Column, Table, draw  # noqa: PLC0415 - one of two ways

    columns = (
        Column("KEY", wrap=True),
        Column("VALUE", right=True),
        Column("DEFAULT", right=True, rank=2),
        Column("MEANING", rank=1, flexible=True, wrap=True),
    )
    rows = [
        [
            Cell(setting.key),
            Cell(_shown(setting.value), "bold" if setting.is_set else ""),
            Cell(_shown(setting.default), "dim"),
            Cell(setting.description),
        ]
        for setting in found
    ]
    draw([Table(columns, rows)])


_key = click.argument("key", metavar="KEY", type=SettingKey())


@config.command(epilog=examples("queuectl config get max_retries"))
@_key
@as_json
@pass_session
def get(session: Session, *, key: str, as_json: bool) -> None:
    """Print the value of a setting."""
    with session.client() as client:
        found = client.setting(key)
    if as_json:
        _print(found, as_json=True)
    else:
        click.echo(_shown(found.value))


@config.command(
    "set",
    # A negative number is a value, which the daemon refuses with the range; it is no option.
    context_settings={"ignore_unknown_options": True},
    epilog=examples("queuectl config set max_retries 5", "queuectl config set backoff_base 1.5"),
)
@_key
@click.argument("value", metavar="VALUE")
@as_json
@pass_session
def set_value(session: Session, *, key: str, value: str, as_json: bool) -> None:
    """Change a setting."""
    with session.client() as client:
        _print(client.set_setting(key, value), as_json=as_json)


@config.command(epilog=examples("queuectl config unset max_retries"))
@_key
@as_json
@pass_session
def unset(session: Session, *, key: str, as_json: bool) -> None:
    """Give a setting its default back."""
    with session.client() as client:
        _print(client.unset_setting(key), as_json=as_json)


def _print(setting: Setting, *, as_json: bool) -> None:
    if as_json:
        from queuectl_client.render.programs import print_json  # noqa: PLC0415 - one of two ways

        print_json(setting)
    else:
        click.echo(f"{setting.key} = {_shown(setting.value)}" + ("" if setting.is_set else " (the default)"))


def _shown(value: float | str) -> str:
    """Without the `.0` of a whole number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
