"""One attempt: start it, watch it, end its process tree, and say how it ended."""

from __future__ import annotations

import contextlib
import enum
import os
import pwd
import signal
import time
from pathlib import Path
from typing import NamedTuple

from queuectl_protocol.errors import cut
from queuectl_protocol.jobs import Outcome
from queuectl_protocol.messages import AttemptResult, Lease
from queuectld import failpoints
from queuectld.attempt_files.log_files import LogFiles
from queuectld.process_tree import cgroups, living, marks, proc
from queuectld.worker.attempt_lock import AttemptLock
from queuectld.worker.launch import NOT_EXECUTABLE, NotStarted, spawn
from queuectld.worker.limited_log import LimitedLog

_NOT_FOR_JOBS = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables by which systemd speaks to one service. A job that was enqueued from within a service does not get them: it
must not answer systemd in the name of that service."""

START_PATIENCE = 60.0
"""Seconds for which the worker tries to start a job while the machine lacks processes or memory."""

_START_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between two tries to start a job; the last one repeats."""

_REKILL_INTERVAL = 0.05
"""Seconds between two looks at a tree that got SIGKILL and still has processes."""

_OUTSIDER_LOOK = 0.05
_OUTSIDER_KILL = 1.0
"""Seconds between two looks whether processes that left the tree are gone, and between two searches for them.

No signal tells the worker that such a process has ended. A search for them looks at all processes.
"""


def clean_environment() -> dict[str, str]:
    """The variables that a job gets besides those that it brings itself."""
    try:
        user = pwd.getpwuid(os.getuid())
        name, home = user.pw_name, user.pw_dir
    except KeyError:  # as in a container that was started with any uid
        name, home = str(os.getuid()), "/"
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    }


class Surroundings(NamedTuple):
    """What all attempts of a worker share.

    Attributes:
        queue_mark: what their markers end with.
        logs: opens their logs.
        lock: the descriptor of the worker's lock, inheritable: its jobs hold it too.
        attempt_lock: what its jobs hold and it does not.
        devnull: what jobs read.
        base: the small clean environment.
        groups: where attempts get cgroups of their own, or None.
        own_group: the worker's own cgroup, or None.
    """

    queue_mark: str
    logs: LogFiles
    lock: int
    attempt_lock: AttemptLock
    devnull: int
    base: dict[str, str]
    groups: Path | None
    own_group: Path | None


class _Phase(enum.Enum):
    STARTING = enum.auto()  # not started yet, for a reason that may pass
    RUNNING = enum.auto()
    TERMINATING = enum.auto()  # SIGTERM was sent; SIGKILL follows at the deadline
    KILLING = enum.auto()


class Attempt:
    """A running attempt.

    The owner calls `step` when a child has died or `deadline` has come, until there is a `result`.
    """

    def __init__(self, lease: Lease, surroundings: Surroundings, kill_grace: float) -> None:
        """Start the attempt. One that can't be started has a `result` soon; that is no error of the worker."""
        self.lease = lease
        self.kill_grace = kill_grace
        self.result: AttemptResult | None = None
        self.delayed_by: str | None = None
        """Why the job could not be started so far; the worker tries again."""
        self._deadline: float | None = None
        self._phase = _Phase.STARTING
        self._ended_as: Outcome | None = None
        self._unasked = False
        self._has_outsiders = False
        self._next_look: float | None = None
        self._status: int | None = None
        self._pid = 0
        self._log: LimitedLog | None = None
        self._group: cgroups.Group | None = None
        self._around = surroundings
        self._tries = 0
        self._give_up_at = time.monotonic() + START_PATIENCE
        self._start()

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` at which something must be done, or None. Past, once there is a result."""
        if self.result is not None:
            return 0.0
        look = self._log.next_look if self._log is not None else None
        return min((when for when in (look, self._deadline, self._next_look) if when is not None), default=None)

    def _start(self) -> None:
        try:
            self._pid = self._spawn()
        except NotStarted as failure:
            if not failure.is_passing or time.monotonic() >= self._give_up_at:
                self._finish(Outcome.FAILED, failure.exit_code, failure.reason)
                return
            self.delayed_by = failure.reason
            self._deadline = time.monotonic() + _START_PAUSES[min(self._tries, len(_START_PAUSES) - 1)]
            self._tries += 1
        else:
            self._phase = _Phase.RUNNING
            self.delayed_by = None
            self._deadline = time.monotonic() + self.lease.timeout if self.lease.timeout else None

    def _spawn(self) -> int:
        lease, around = self.lease, self._around
        environment = {} if lease.exact_env else dict(around.base)
        environment.update(lease.env or {})
        for name in _NOT_FOR_JOBS:
            environment.pop(name, None)
        environment["QUEUECTL_JOB_ID"] = lease.id
        environment["QUEUECTL_ATTEMPT"] = str(lease.attempt)
        environment["QUEUECTL_MAX_RETRIES"] = str(lease.max_retries)
        environment["QUEUECTL_QUEUE"] = lease.queue
        environment[marks.MARKER] = lease.token + around.queue_mark
        argv = ["/bin/sh", "-c", lease.command] if lease.command is not None else lease.argv
        assert argv is not None  # noqa: S101 - a lease carries one of the two
        try:
            around.attempt_lock.prepare()
        except OSError as error:
            raise NotStarted(NOT_EXECUTABLE, "can't open its lock", error) from error
        try:
            log = around.logs.open(lease.job, lease.attempt)
        except OSError as error:
            raise NotStarted(NOT_EXECUTABLE, f"can't open its log {error.filename}", error) from error
        failpoints.hit("worker.spawning")
        try:
            with self._group_entered(around):
                pid = spawn(argv, environment, lease.cwd or around.base["HOME"], around.devnull, log)
        except OSError as error:  # of entering the group
            os.close(log)
            raise NotStarted(NOT_EXECUTABLE, "can't enter its control group", error) from error
        except BaseException:
            os.close(log)
            raise
        around.attempt_lock.let_go()
        failpoints.hit("worker.spawned")
        if lease.log_max_bytes:
            self._log = LimitedLog(log, lease.log_max_bytes, time.monotonic())
        else:
            os.close(log)
        return pid

    def _group_entered(self, around: Surroundings) -> contextlib.AbstractContextManager[None]:
        if around.groups is None or around.own_group is None:
            return contextlib.nullcontext()
        if self._group is None:
            group = cgroups.Group(around.groups, self.lease.token + around.queue_mark)
            try:
                group.make()
            except OSError:
                return (
                    contextlib.nullcontext()
                )  # not the fault of the job: its processes are found as they are without cgroups
            self._group = group
        return self._group.entered(around.own_group)

    def end(self, outcome: Outcome, kill_grace: float, *, unasked: bool = False) -> None:
        """End the tree: SIGTERM now, SIGKILL after `kill_grace` seconds. Does nothing where that has begun already.

        Args:
            outcome: of the attempt, unless its main process has ended before.
            kill_grace: seconds, 0 or more.
            unasked: no daemon asked for this end.
        """
        if self.result is not None:
            return
        if self._phase is _Phase.STARTING:
            self._finish(outcome, None, None)
        elif self._status is None and self._ended_as is None:
            self._ended_as, self._unasked = outcome, unasked
            self._terminate(kill_grace)

    def _terminate(self, kill_grace: float) -> None:
        self._phase = _Phase.TERMINATING
        living.terminate_descendants(self._group.processes if self._group else tuple)
        self._deadline = time.monotonic() + kill_grace

    def kill(self) -> None:
        """End the tree without grace."""
        if self._phase is _Phase.STARTING:
            self.end(Outcome.INTERRUPTED, 0.0)
        self._phase = _Phase.KILLING
        self._deadline = time.monotonic()

    def step(self) -> None:
        """Reap, act on the deadline if it has come, and settle the result if all processes are gone."""
        if self.result is not None:
            return
        if self._phase is _Phase.STARTING:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._start()
            return
        if self._log is not None:
            self._log.look(time.monotonic())
        # A process below another subreaper is no child of this worker, but is still in the group. A process that was
        # moved out of the group is still a child. Only both looks together are the proof.
        alone = self._reap() and (self._group is None or self._group.is_empty())
        if self._status is not None and alone:
            if self._around.attempt_lock.is_free():
                self._settle(self._status)
                return
            self._on_outsiders()
        if self._status is not None and self._phase is _Phase.RUNNING:
            # The main process has ended by itself; what it left behind is ended too.
            self._terminate(self.kill_grace)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            if self._phase is _Phase.RUNNING:
                self.end(Outcome.TIMEOUT, self.kill_grace)
            else:
                self._phase = _Phase.KILLING
                if self._group is not None:
                    self._group.kill()
                living.kill_descendants()
                self._signal_outsiders(signal.SIGKILL)
                pause = _OUTSIDER_KILL if self._has_outsiders else _REKILL_INTERVAL
                self._deadline = time.monotonic() + pause

    def _on_outsiders(self) -> None:
        """End processes that have left the tree and still hold the attempt's lock; only then is the outcome told.

        For example, a job that enters a PID namespace leaves its orphans to the init of that namespace.
        """
        if not self._has_outsiders:
            self._has_outsiders = True
            if self._phase is _Phase.RUNNING:
                self._phase = _Phase.TERMINATING
                self._deadline = time.monotonic() + self.kill_grace
            self._signal_outsiders(signal.SIGTERM)
        self._next_look = time.monotonic() + _OUTSIDER_LOOK

    def _signal_outsiders(self, number: signal.Signals) -> None:
        if self._has_outsiders:
            mark = self.lease.token + self._around.queue_mark
            for pid in marks.carriers(mark, self._around.attempt_lock.identity):
                proc.send(pid, number)
                proc.send(pid, signal.SIGCONT)

    def _reap(self) -> bool:
        """Collect dead children; whether none, dead or alive, is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self._status = status

    def _settle(self, status: int) -> None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = 128 + number if number is not None else os.WEXITSTATUS(status)
        if self._ended_as is Outcome.TIMEOUT:
            self._finish(Outcome.TIMEOUT, code, f"timed out after {self.lease.timeout:g} s", number)
        elif self._ended_as is not None:
            self._finish(self._ended_as, code, None, number)
        elif code == 0:
            self._finish(Outcome.COMPLETED, 0, None)
        elif number is not None:
            self._finish(Outcome.FAILED, code, f"killed by signal {number} ({_signal_name(number)})", number)
        else:
            self._finish(Outcome.FAILED, code, f"exit code {code}")

    def _finish(self, outcome: Outcome, code: int | None, error: str | None, number: int | None = None) -> None:
        self._deadline = None
        if self._group is not None:
            self._group.remove()
        if self._log is not None:
            self._log.close()
            self._log = None
        self.result = result_of(self.lease, outcome, code, error, number, unasked=self._unasked)


def result_of(
    lease: Lease,
    outcome: Outcome,
    code: int | None = None,
    error: str | None = None,
    number: int | None = None,
    *,
    unasked: bool = False,
) -> AttemptResult:
    """How an attempt ended, just now."""
    return AttemptResult(
        job=lease.job,
        attempt=lease.attempt,
        token=lease.token,
        outcome=outcome,
        ended_at=time.time(),
        exit_code=code,
        signal=number,
        error=None if error is None else cut(error),
        unasked=unasked,
    )


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return "a real-time signal"
