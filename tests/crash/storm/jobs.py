"""The jobs of the storm: what they do, and the journal that they keep by themselves.

The journal is one file that everybody appends to, each line in a single write(2), so that the order of its lines is the
order of what happened. It knows nothing of queuectl. An execution holds an flock on a file of its job through all its
processes and for all its life, whether or not it comes to write an end: who can't take it has found an overlap.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SCRIPT = r"""#!/bin/sh
# job.sh KIND [ARGUMENT]: what a job of the storm does. STORM names the directory of the evidence.
say() {
    read -r up _ </proc/uptime
    echo "$1 $QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT $$ $up $2" >>"$STORM/journal"
}
finish() {
    say end "$1"
    exit "$1"
}

case $1 in
hopper) # never two of its processes have the same pid, and none lives long
    sleep 0.01
    if [ "$2" -gt 0 ]; then setsid sh "$0" hopper $(($2 - 1)) & exit; fi
    exec sleep 100000
    ;;
esac

say begin
exec 9>>"$STORM/locks/$QUEUECTL_JOB_ID"
flock -n -E 77 9
[ $? -eq 77 ] && say overlap

case $1 in
ok)
    finish 0
    ;;
slow)
    sleep "$2"
    finish 0
    ;;
fail)
    finish "$2"
    ;;
flaky) # succeeds from a certain attempt on
    [ "$QUEUECTL_ATTEMPT" -ge "$2" ] && finish 0
    finish 3
    ;;
endless)
    exec sleep 100000
    ;;
stubborn) # ignores the polite signal, and so do its children
    trap '' TERM HUP INT
    setsid sh -c 'while :; do sleep 0.1; done' &
    sleep "$2"
    finish 0
    ;;
fork) # children in sessions of their own, with and without a living parent
    setsid sleep 100000 &
    (setsid sh -c 'sleep 100000 & sleep 100000' &)
    sleep "$2"
    finish 0
    ;;
close) # nothing that the worker gave it stays open; 9 is the storm's own
    exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-
    setsid sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
    sleep "$2"
    finish 0
    ;;
hop)
    setsid sh "$0" hopper 100 &
    sleep "$2"
    finish 0
    ;;
esac
finish 99
"""

KINDS: Mapping[str, int] = {
    "ok": 30, "slow": 20, "fail": 8, "flaky": 10, "endless": 4, "stubborn": 6, "fork": 8, "close": 6, "hop": 3,
}  # fmt: skip
"""Kind -> weight."""


@dataclass(slots=True)
class Submission:
    """A job that a client asked for, and what the client knows of it. Only its client writes to it."""

    id: str
    kind: str
    spec: dict[str, Any]
    acknowledged: bool = False
    cancels_sent: int = 0
    cancelled: bool = False
    """A cancel was acknowledged, and no retry was sent after it."""
    retries_sent: int = 0

    @property
    def allowed(self) -> int:
        """Counted executions that it may have in all."""
        return max(1, int(self.spec["max_retries"])) * (1 + self.retries_sent)


class Line(NamedTuple):
    """One line of the journal."""

    word: str
    job: str
    attempt: int
    pid: int
    uptime: float
    """Seconds since boot."""
    code: int | None


def prepare(directory: Path) -> None:
    """Put the script, the journal and the place for locks into the directory of the evidence."""
    (directory / "job.sh").write_text(SCRIPT)
    (directory / "locks").mkdir()
    (directory / "journal").touch()


def invent(number: str, random: Random, directory: Path) -> Submission:
    """A job with everything about it decided by `random`."""
    kind = random.choices([*KINDS], [*KINDS.values()])[0]
    argument = {
        "fail": str(random.randint(1, 100)),
        "flaky": str(random.randint(2, 4)),
    }.get(kind, f"{random.choice([0.05, 0.1, 0.2, 0.4, 1.0])}")
    spec: dict[str, Any] = {
        "id": number,
        "argv": ["/bin/sh", str(directory / "job.sh"), kind, argument],
        "env": {"STORM": str(directory)},
        "max_retries": random.choice([0, 1, 2, 3, 3, 3, 5]),
        "priority": random.choice([-1, 0, 0, 0, 0, 5]),
        "queue": random.choice(["default", "default", "other", "third"]),
    }
    if kind == "endless" or random.random() < 0.1:
        spec["timeout"] = random.choice([0.1, 0.3, 0.6])
    if random.random() < 0.1:
        spec["delay"] = random.choice([0.1, 0.5, 1.5])
    return Submission(number, kind, spec)


def read_journal(path: Path) -> list[Line]:
    return list(_lines(path.read_text()))


def _lines(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        word, job, attempt, pid, uptime, *code = line.split()
        yield Line(word, job, int(attempt), int(pid), float(uptime), int(code[0]) if code else None)


@dataclass(slots=True)
class Ledger:
    """What all clients have asked for, shared between threads."""

    submissions: dict[str, Submission] = field(default_factory=dict)
    replies: int = 0
    lost_replies: int = 0
    news: threading.Condition = field(default_factory=threading.Condition)
    """Notified at each acknowledgement of an enqueue."""

    def acknowledge(self, batch: list[Submission]) -> None:
        with self.news:
            for one in batch:
                one.acknowledged = True
            self.replies += 1
            self.news.notify_all()

    def wait_reply(self, seconds: float) -> None:
        """Return right after the next acknowledgement, or after `seconds`."""
        with self.news, contextlib.suppress(TimeoutError):
            self.news.wait(seconds)
