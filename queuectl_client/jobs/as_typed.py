"""Jobs given as a command line: they run as if typed here, in this directory and with this environment."""

from __future__ import annotations

import os

from queuectl_client.errors import BadRequest

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def fields_of(
    argv: Sequence[str] | None,
    command: str | None,
    cwd: str | None,
    env: Sequence[str],
    clean_env: bool,
    shared: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """The fields of `JobSpec` for a job, to be run as if typed here, and the variables that can't be handed on.

    Args:
        argv: a program and its arguments; this or `command` is given.
        command: for the shell.
        cwd: where to run it; None: here.
        env: variables, `NAME=VALUE`.
        clean_env: hand on no others.
        shared: fields that all ways to enqueue share, None where an option was not given.

    Raises:
        BadRequest: it can't be sent.
    """
    for name, value in shared.items():
        if isinstance(value, str):
            _text(value, f"--{name}")
    given = dict(_variable(text) for text in env)
    inherited, left_out = ({}, []) if clean_env else _environment()
    variables = inherited | given
    fields = {
        **shared,
        "argv": None if argv is None else [_text(word, f"argument {word!r}") for word in argv],
        "command": None if command is None else _text(command, "the command"),
        "cwd": _directory(cwd),
        "env": variables if variables or not clean_env else None,
        "exact_env": None if clean_env else True,
        "env_given": [*given] if given and not clean_env else None,
    }
    return {name: value for name, value in fields.items() if value is not None}, left_out


def _directory(cwd: str | None) -> str:
    try:
        path = os.path.abspath(cwd or ".")  # a symbolic link keeps its name
    except FileNotFoundError:
        raise BadRequest("the current directory does not exist any more; name one with --cwd") from None
    return _text(path, "the current directory" if cwd is None else "--cwd")


def _text(value: str, what: str) -> str:
    """The same, if it can be sent: JSON is UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{what} is not UTF-8; put it into a script, and enqueue that") from None
    return value


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = _text(text, f"--env {text!r}").partition("=")
    if not sign or not name:
        raise BadRequest(f"--env {text!r}: expected NAME=VALUE")
    return name, value


def _environment() -> tuple[dict[str, str], list[str]]:
    """This process's environment, and the names of variables that are not UTF-8, and so can't be sent."""
    variables: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in _as_it_was().items():
        try:
            f"{name}={value}".encode()
        except UnicodeEncodeError:
            left_out.append(name)
        else:
            variables[name] = value
    return variables, sorted(left_out)


def _as_it_was() -> dict[str, str]:
    """This process's environment as it was started with.

    Where the locale was C (in a cron job, say), the interpreter has changed LC_CTYPE to one with UTF-8 (PEP 538),
    which no program that is typed would find.
    """
    variables = dict(os.environ)
    if variables.get("LC_CTYPE") in {"C.UTF-8", "C.utf8", "UTF-8"}:
        try:
            with open("/proc/self/environ", "rb") as environ:
                started_with = environ.read().split(b"\0")
        except OSError:
            return variables
        given = next((entry for entry in started_with if entry.startswith(b"LC_CTYPE=")), None)
        if given is None:
            del variables["LC_CTYPE"]
        else:
            variables["LC_CTYPE"] = os.fsdecode(given.partition(b"=")[2])
    return variables
