"""The options of the commands that people call in loops, as a table.

`commandline.parameters` makes click's options of it, and `direct.parse` reads it without click: what an option is
called, what it takes and what it is without being given stands here only.
"""

from __future__ import annotations

from queuectl_protocol.states import STATES

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["text", "queue", "file", "directory", "integer", "time", "choice", "flag", "period"]


class Option:
    """An option of a command.

    Attributes:
        name: of its value among the values of the command.
        flags: how it is typed, `-c` and `--command`.
        kind: what it takes: `text`, the name of a `queue`, a `file` or a `directory`, an `integer`, a `time` with a
            unit, a `choice` among `words`; nothing (`flag`); seconds or nothing (`period`, which click alone reads).
        metavar: what stands for its value in the help; None: click's own, or that of a flag.
        help: a sentence.
        default: its value where it is not given.
        least: the least integer that it takes; None is no bound.
        words: that a `choice` takes.
        multiple: it may be given several times, and its value is a tuple.
    """

    __slots__ = ("default", "flags", "help", "kind", "least", "metavar", "multiple", "name", "words")

    def __init__(
        self,
        name: str,
        *flags: str,
        kind: Kind = "text",
        metavar: str | None = None,
        help: str,  # noqa: A002 - click's word for it
        default: str | int | None = None,
        least: int | None = None,
        words: tuple[str, ...] = (),
        multiple: bool = False,
    ) -> None:
        self.name = name
        self.flags = flags
        self.kind = kind
        self.metavar = metavar
        self.help = help
        self.default = default
        self.least = least
        self.words = words
        self.multiple = multiple

    @property
    def absent(self) -> object:
        """The value where the option is not given."""
        return False if self.kind == "flag" else () if self.multiple else self.default


JSON = Option("as_json", "--json", kind="flag", help="Print JSON: one object, or one a line, for programs.")

JOB = (
    Option("id", "--id", metavar="ID", help="The job's id; a random one if none is given."),
    Option("queue", "--queue", kind="queue", metavar="NAME", help="The queue; `default` if none is given."),
    Option("priority", "--priority", kind="integer", metavar="N", help="Higher runs first; 0 if none is given."),
    Option("max_retries", "--max-retries", kind="integer", metavar="N", help="Executions in all, the first included."),
    Option("timeout", "--timeout", kind="time", metavar="TIME", help="End an attempt after this: 90, 90s, 5m, 2h."),
    Option("delay", "--delay", kind="time", metavar="TIME", help="Do not run it before this time has passed."),
    Option("label", "--label", metavar="TEXT", help="A remark, shown in lists."),
)
"""What all ways to enqueue share; the names are those of the fields of `JobSpec`."""

COMMAND_LINE = (
    Option("command", "-c", "--command", metavar="COMMAND", help="Run COMMAND by `/bin/sh -c`."),
    Option(
        "cwd",
        "--cwd",
        kind="directory",
        metavar="DIR",
        help="Run it in DIR; the current directory if none is given.",
    ),
    Option("env", "--env", metavar="K=V", multiple=True, help="Set a variable; may be given several times."),
    Option(
        "clean_env", "--clean-env", kind="flag", help="Do not hand on this environment, only what --env sets."
    ),
)  # fmt: skip
"""Of jobs that are given as a command line."""

FILE = Option(
    "file", "--file", kind="file", metavar="FILE", help="Bulk: one JSON object a line; `-` is standard input."
)

IDS_FROM = Option(
    "ids_from",
    "--ids-from",
    kind="file",
    metavar="FILE",
    help="The ids, one a line, from FILE or `-`. Jobs that ended or went meanwhile are passed over.",
)

ENQUEUE = (*COMMAND_LINE, FILE, *JOB, JSON)

LIST = (
    Option("state", "--state", kind="choice", words=(*STATES, "all"), default="pending", help="Which jobs."),
    Option("queue", "--queue", kind="queue", metavar="NAME", help="Only this queue."),
    Option("limit", "--limit", kind="integer", least=0, default=50, help="At most so many; 0 is all."),
    JSON,
)

WAIT = (
    Option("timeout", "--timeout", kind="time", metavar="TIME", help="Give up after this: 90, 90s, 5m, 2h."),
    JSON,
)

CANCEL = (
    IDS_FROM,
    Option("no_wait", "--no-wait", kind="flag", help="Do not wait until running ones have ended."),
    JSON,
)

STATUS = (
    Option(
        "watch",
        "--watch",
        kind="period",
        metavar="[SECONDS]",
        help="Show it again and again, every second or every SECONDS, until Ctrl-C.",
    ),
    JSON,
)
