"""Where a shell looks for the completion at login, and what has to be added to its own files for that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from queuectl_client.errors import ClientError
from queuectl_client.system.completion_scripts import SCRIPTS, Shell

BEGIN, END = "# >>> queuectl completion >>>", "# <<< queuectl completion <<<"

_ZSH_BLOCK = """fpath=("{directory}" $fpath)
if (( $+functions[compdef] )); then
  autoload -Uz _queuectl && compdef _queuectl queuectl
else
  autoload -Uz compinit && compinit -i
fi"""


def install(shell: Shell, environ: Mapping[str, str]) -> list[str]:
    """Put the script where the shell finds it, and have it looked for there; what was done, a sentence each.

    Doing it again changes nothing, or brings it up to date.

    Raises:
        ClientError: a file can't be written.
    """
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - of the environment given
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    try:
        match shell:
            case "bash":
                script = data / "bash-completion/completions/queuectl"
                # bash-completion looks there by itself, where it is installed. What is added needs no queuectl on the
                # PATH: Debian's .profile reads .bashrc before it adds ~/.local/bin.
                line = f'if [ -r "{script}" ]; then . "{script}"; fi'
                done = [_write(script, SCRIPTS[shell]), _add(home / ".bashrc", line)]
                if (profile := _profile(home)) is not None:
                    done.append(
                        _add(profile, f'if [ -n "${{BASH_VERSION-}}" ] && [ -r "{script}" ]; then . "{script}"; fi')
                    )
            case "zsh":
                directory = data / "zsh/site-functions"
                settings = Path(environ.get("ZDOTDIR") or home) / ".zshrc"
                script = directory / "_queuectl"
                done = [_write(script, SCRIPTS[shell]), _add(settings, _ZSH_BLOCK.format(directory=directory))]
            case "fish":
                script = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish/completions/queuectl.fish"
                done = [_write(script, SCRIPTS[shell])]
    except OSError as error:
        raise ClientError(f"can't write {error.filename}: {error.strerror}") from None
    return done


def _profile(home: Path) -> Path | None:
    """What bash reads at login, if it does not read .bashrc from there; None if it does."""
    names = (".bash_profile", ".bash_login", ".profile")
    found = next((home / name for name in names if (home / name).exists()), None)
    if found is not None and "bashrc" in found.read_text(errors="replace"):
        return None
    return found or home / ".profile"


def _write(path: Path, text: str) -> str:
    if path.exists() and path.read_text(errors="replace") == text:
        return f"{path} is up to date"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return f"wrote {path}"


def _add(path: Path, lines: str) -> str:
    """Add lines between two marks at the end of a file; replace what an earlier call put there."""
    block = f"{BEGIN}\n{lines}\n{END}\n"
    before = path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""
    head, begin, rest = before.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"{END}\n")
    if begin and end:
        after = head + block + tail
    else:
        after = before + ("" if not before or before.endswith("\n") else "\n") + block
    if after == before:
        return f"{path} reads it already"
    path.write_bytes(after.encode(errors="surrogateescape"))
    return (
        f"added to {path}: {len(lines.splitlines())} lines that read it"
        if "\n" in lines
        else f"added to {path}: {lines}"
    )
