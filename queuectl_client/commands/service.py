"""`queuectl service`: put the daemon under systemd, and take it away again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from queuectl_client.commandline.parameters import examples
from queuectl_client.errors import ClientError
from queuectl_client.render.remarks import remark
from queuectl_client.system import units
from queuectl_client.system.units import SERVICE_HOME, SERVICE_USER, UNITS, Scope, UnitFile

_Command = TypeVar("_Command", bound=Callable[..., None])


def _shared_options(command: _Command) -> _Command:
    for option in (
        click.option("--force", is_flag=True, help="Also where a file was changed by hand since it was written."),
        click.option(
            "--root",
            type=click.Path(file_okay=False, path_type=Path),
            help="Work below this directory instead of /, and leave the running system alone (for packages).",
        ),
        click.option("--user", "scope", flag_value="user", help="For yourself, as `systemctl --user` runs it."),
        click.option("--system", "scope", flag_value="system", help="For the whole machine (the default of root)."),
    ):
        command = option(command)
    return command


@click.group()
def service() -> None:
    """Run the daemon under systemd."""


@service.command(epilog=examples("sudo queuectl service install", "queuectl service install --user"))
@_shared_options
@click.option(
    "--queuectld",
    type=click.Path(path_type=Path),
    help="The daemon's program, as it will be called on the system, with queuectl beside it "
    "(default: the one beside this queuectl).",
)
def install(scope: Scope | None, root: Path | None, queuectld: Path | None, *, force: bool) -> None:
    """Write the units, and say how to start them."""
    scope = _scope_or_default(scope, root)
    program = queuectld or _find_queuectld()
    if not program.is_absolute():
        raise ClientError(f"{program} is not an absolute path", "systemd looks for a program nowhere else")
    files = units.unit_files(scope, program, root or Path("/"), os.environ)
    _refuse_foreign(files, force=force)
    for file in files:
        state = file.state()
        if state != "current":
            file.write()
        click.echo(f"{'unchanged' if state == 'current' else 'wrote'} {file.path}")
    if scope == "system":
        _warn_if_out_of_reach(program, own=queuectld is None)
    if root is not None:
        return
    if scope == "system":
        _ensure_user(files[-1])
    _say_what_is_next(scope)


@service.command(
    epilog=examples(
        "sudo systemctl disable --now queuectld.socket queuectld.service", "sudo queuectl service uninstall"
    )
)
@_shared_options
def uninstall(scope: Scope | None, root: Path | None, *, force: bool) -> None:
    """Remove the units that `install` wrote. Jobs, logs and the user queuectl stay."""
    scope = _scope_or_default(scope, root)
    if root is None and (states := _in_use(scope)):
        raise ClientError(
            f"queuectld is still {' and '.join(states)}", f"first `{_systemctl(scope)} disable --now {' '.join(UNITS)}`"
        )
    # The path of the program does not matter for what is to be removed.
    files = units.unit_files(scope, Path("/queuectld"), root or Path("/"), os.environ)
    _refuse_foreign(files, force=force)
    present = [file for file in files if file.state() != "missing"]
    for file in present:
        file.remove()
        click.echo(f"removed {file.path}")
    if not present:
        click.echo("nothing to remove")
    elif root is None:
        click.echo(f"Next: {_systemctl(scope)} daemon-reload")
        if scope == "system":
            click.echo(f"Jobs and logs are still in /var/lib/queuectl, and so is the user {SERVICE_USER}.")


def _scope_or_default(scope: Scope | None, root: Path | None) -> Scope:
    is_root = os.geteuid() == 0
    if scope is None:
        return "system" if is_root else "user"
    if scope == "system" and root is None and not is_root:
        raise ClientError("only root can install for the whole machine", "use sudo, or --user for a daemon of your own")
    return scope


def _find_queuectld() -> Path:
    beside = Path(sys.executable).with_name("queuectld")  # not resolved: in a virtual environment, python is a link
    if beside.exists():
        return beside
    if found := shutil.which("queuectld"):
        return Path(found).absolute()
    raise ClientError("queuectld was not found beside this queuectl, nor in PATH", "name it with --queuectld")


def _refuse_foreign(files: list[UnitFile], *, force: bool) -> None:
    """Before the first file is touched."""
    foreign = [str(file.path) for file in files if file.state() == "foreign"]
    if foreign and not force:
        raise ClientError(
            f"{' and '.join(foreign)} was changed by hand, or is not from here",
            "put changes into a drop-in (`systemctl edit queuectld.service`) and use --force to lose those in the file",
        )


def _warn_if_out_of_reach(program: Path, *, own: bool) -> None:
    needed = [program]
    if own:  # the interpreter and the packages are this command's own: a checkout or a pyenv may lie elsewhere
        needed += [Path(sys.executable).resolve(), Path(units.__file__)]
    if hidden := units.out_of_reach(needed):
        remark(
            f"the service can't reach {' and '.join(map(str, hidden))}: it runs as user {SERVICE_USER}, and home "
            "directories are hidden from it (ProtectHome=)",
            "install where everybody may read, with a Python that everybody may run: `/usr/bin/python3 -m venv "
            "/opt/queuectl && /opt/queuectl/bin/pip install queuectld && /opt/queuectl/bin/queuectl service install`",
        )


def _ensure_user(sysusers: UnitFile) -> None:
    try:
        pwd.getpwnam(SERVICE_USER)
    except KeyError:
        pass
    else:
        return
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # `su` leaves the latter two out
    if tool := shutil.which("systemd-sysusers", path=path):
        command = [tool, str(sysusers.path)]
    elif tool := shutil.which("useradd", path=path):
        command = [
            tool,
            "--system",
            "--user-group",
            "--home-dir",
            SERVICE_HOME,
            "--shell",
            "/usr/sbin/nologin",
            SERVICE_USER,
        ]
    else:
        raise ClientError(
            f"there is neither systemd-sysusers nor useradd to make the user {SERVICE_USER}",
            f"make a system user {SERVICE_USER} with a group of the same name and the home directory {SERVICE_HOME}",
        )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClientError(f"the user {SERVICE_USER} could not be made: {done.stderr.strip() or done.returncode}")
    click.echo(f"made the user {SERVICE_USER}; members of its group may use the queue")


def _say_what_is_next(scope: Scope) -> None:
    systemctl = _systemctl(scope)
    action = "restart queuectld.service" if "active" in _in_use(scope) else f"enable --now {' '.join(UNITS)}"
    click.echo(f"Next: {systemctl} daemon-reload && {systemctl} {action}")
    if action.startswith("enable"):
        click.echo("Then workers, which are remembered: queuectl worker start --count 2")
    if scope == "user":
        # With sudo, since a user may ask for it himself only where polkit is installed.
        click.echo('So that it goes on after you log out: sudo loginctl enable-linger "$USER"')
    else:
        click.echo(f"Who may use it, from the next login on: usermod --append --groups {SERVICE_USER} NAME")


def _systemctl(scope: Scope) -> str:
    return "systemctl" if scope == "system" else "systemctl --user"


def _in_use(scope: Scope) -> list[str]:
    """Which of "active" and "enabled" some of the units are. Without a running systemd nothing is active."""

    def states(verb: str) -> set[str]:
        command = [*_systemctl(scope).split(), verb, *UNITS]
        try:
            return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())
        except FileNotFoundError:
            return set()

    active = states("is-active") - {"inactive", "failed", "unknown"}
    enabled = states("is-enabled") & {"enabled", "enabled-runtime"}
    return ["active"] * bool(active) + ["enabled"] * bool(enabled)
