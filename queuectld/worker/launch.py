"""How a job's process is started: in a session of its own, with the descriptors, signals and directory that it expects.

posix_spawn(3) and not subprocess: no module to load, a third of the time in this process, and nothing of it copied.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""Exit codes of what could not be started, as a shell gives them."""

_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT})
"""What the machine lacks at this moment: no fault of the job's, and over in a while."""

_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python itself, and by whoever is started by it unless they are given back."""


class NotStarted(Exception):  # noqa: N818 - what happened, not an error of this program
    """A process could not be started.

    Attributes:
        exit_code: as a shell gives it.
        reason: for a person.
        is_passing: whether it may go if tried again, with nothing changed of the job.
    """

    def __init__(self, exit_code: int, what: str, error: OSError | None = None) -> None:
        reason = what if error is None else f"{what}: {error.strerror or error}"
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason
        self.is_passing = error is not None and error.errno in _PASSING


def spawn(argv: list[str], environment: Mapping[str, str], cwd: str, stdin: int, output: int) -> int:
    """Start a program; its PID.

    Args:
        argv: the program and its arguments; without a slash it is looked for along the PATH of `environment`.
        environment: all of it.
        cwd: the directory that it starts in, and that relative names are relative to.
        stdin: the descriptor of its input.
        output: of its output and its errors.

    Every other descriptor that is inheritable is inherited. Called by the only thread of its process, whose own
    directory is `/` afterwards.

    Raises:
        NotStarted: it can't be.
    """
    try:
        os.chdir(cwd)
    except OSError as error:
        raise NotStarted(NOT_EXECUTABLE, f"can't enter the working directory {cwd}", error) from error
    try:
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        return _spawn_first(argv, environment, actions)
    finally:
        os.chdir("/")  # an idle worker keeps no file system busy


def _spawn_first(argv: list[str], environment: Mapping[str, str], actions: Sequence[tuple[int, int, int]]) -> int:
    """The first of the places where the program may be that can be started, as execvp(3) looks for it."""
    program = argv[0]
    refusal: OSError | None = None
    for path in _places(program, environment):
        try:
            return os.posix_spawn(
                path, argv, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS
            )
        except OSError as error:
            if error.errno in _PASSING:
                raise NotStarted(NOT_EXECUTABLE, f"can't start {path}", error) from error
            refusal = error
    if refusal is None or (isinstance(refusal, FileNotFoundError) and not os.path.lexists(refusal.filename)):
        raise NotStarted(NOT_FOUND, f"can't find the program {program}") from refusal
    if isinstance(refusal, FileNotFoundError):
        raise NotStarted(
            NOT_FOUND, f"can't start {refusal.filename}: what is to interpret it is not there"
        ) from refusal
    raise NotStarted(NOT_EXECUTABLE, f"can't start {refusal.filename}", refusal) from refusal


def _places(program: str, environment: Mapping[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    found = (f"{directory}/{program}" for directory in os.get_exec_path(environment))
    # Each try costs a process, a look costs next to nothing.
    return [path for path in found if program and os.access(path, os.F_OK)]
