"""What was typed, where the table of options tells wholly what it means. Everything else is left to click."""

from __future__ import annotations

import os

from queuectl_client.jobs import options
from queuectl_client.jobs.durations import parse_duration

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import Any

    from queuectl_client.jobs.options import Option


class Call:
    """A call of a command.

    Attributes:
        command: its name.
        socket: what `--socket` said; None where it was not given.
        values: of its options by their names, absent ones included, and `jobs` where it takes those.
        program: what came after `--`; None where there was no `--`.
    """

    __slots__ = ("command", "program", "socket", "values")

    def __init__(
        self, command: str, socket: str | None, values: dict[str, Any], program: list[str] | None = None
    ) -> None:
        self.command = command
        self.socket = socket
        self.values = values
        self.program = program


_OPTIONS = {
    "enqueue": options.ENQUEUE,
    "status": options.STATUS,
    "wait": options.WAIT,
    "list": options.LIST,
    "cancel": options.CANCEL,
}
_TAKE_JOBS = ("wait", "cancel")


def parse(arguments: list[str]) -> Call | None:
    """The call, if click would read it as just the same; None: click has to look at it.

    Args:
        arguments: those of the process, without its name.
    """
    socket, rest = None, arguments
    while rest and rest[0].startswith("--socket"):
        flag, sign, value = rest[0].partition("=")
        if flag != "--socket" or (not sign and len(rest) < 2):
            return None
        socket, rest = (value, rest[1:]) if sign else (rest[1], rest[2:])
    if socket is not None and (not socket.strip(".") or not os.access(socket, os.R_OK)):
        return None
    if not rest or rest[0] not in _OPTIONS:
        return None
    command, rest = rest[0], rest[1:]
    program = None
    if command == "enqueue" and "--" in rest:
        at = rest.index("--")
        rest, program = rest[:at], rest[at + 1 :]
    values = _values(_OPTIONS[command], rest, takes_jobs=command in _TAKE_JOBS)
    return None if values is None else Call(command, socket, values, program)


def _values(table: tuple[Option, ...], words: list[str], *, takes_jobs: bool) -> dict[str, Any] | None:
    """The values of the options in `words`; None: not all of it is understood."""
    by_flag = {flag: option for option in table for flag in option.flags}
    values: dict[str, Any] = {option.name: option.absent for option in table}
    jobs: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-"):
            if not takes_jobs or not word:
                return None
            jobs.append(word)
            continue
        flag, sign, text = word.partition("=") if word.startswith("--") else (word, "", "")
        option = by_flag.get(flag)
        if option is None:
            return None
        if option.kind == "flag":
            if sign:
                return None
            values[option.name] = True
            continue
        if not sign:
            if at == len(words):
                return None
            text = words[at]
            at += 1
        try:
            value = _value(option, text)
        except ValueError:
            return None
        values[option.name] = (*values[option.name], value) if option.multiple else value
    if takes_jobs:
        if not jobs:
            return None
        values["jobs"] = tuple(jobs)
    return values


def _value(option: Option, text: str) -> Any:
    """What `text` means as the option's value.

    Raises:
        ValueError: it is wrong, or for click alone to read.
    """
    match option.kind:
        case "text" | "queue" | "file" | "directory":
            return text
        case "integer":
            number = int(text)
            if option.least is not None and number < option.least:
                raise ValueError
            return number
        case "time":
            return parse_duration(text)
        case "choice" if text in option.words:
            return text
    raise ValueError
