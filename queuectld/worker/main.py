"""The worker process: attach to the daemon, run one attempt at a time, tell how it ended, outlive the daemon meanwhile.

One loop waits for three things: a message from the daemon, a child's death, a deadline. Nothing here is polled, but for
the daemon's return while it is away. Nothing here waits for the daemon either: it may be stopped, or hang, and the
job's timeout is to be kept all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from queuectl_protocol import framing
from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import Outcome
from queuectl_protocol.lines import Lines
from queuectl_protocol.messages import (
    AttachParams,
    AttachResult,
    AttemptEnd,
    AttemptRef,
    AttemptResult,
    AttemptStart,
    FinishParams,
    FinishResult,
    Lease,
    NoParams,
    WorkerConfig,
)
from queuectl_protocol.paths import MAX_SOCKET_PATH
from queuectld import failpoints, start
from queuectld.attempt_files import address, exit_records
from queuectld.attempt_files.log_files import LogFiles
from queuectld.process_tree import cgroups, marks, proc
from queuectld.worker.attempt_lock import AttemptLock
from queuectld.worker.runner import Attempt, Surroundings, clean_environment, result_of

IDLE_PATIENCE = 30.0
"""Seconds that a worker without a job waits for its daemon to come back: long enough for a restart.

The daemon may have leased a job to this worker without the worker knowing. A worker that exits too soon would be taken
for lost, and the job with it.
"""

REPORT_PATIENCE = 60.0
"""Seconds that a worker with an untold outcome waits; after that the exit record alone has to tell it."""

RETRY_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to reach the daemon; the last one repeats."""

LONGEST_WAIT = 86_400.0
"""Seconds of one wait, at most; poll(2) takes no more than 24.8 days. After it, deadlines are looked at again."""

ADDRESS_PAUSE = 1.0
"""Seconds between two looks whether the daemon listens elsewhere, while a socket that took the worker is silent."""

ANSWER_PATIENCE = 5.0
"""Seconds after which an outcome that the daemon took but has not confirmed is written as an exit record too."""


class Worker:
    """The state of one worker process. At most one of `attempt` and `untold` is set."""

    def __init__(self, worker_id: str, socket_path: Path, state_dir: Path, groups: Path | None, mark: str) -> None:
        self._id = worker_id
        self._mark = mark
        """The queue's mark. A worker that version 0.1 started learns it from the first daemon that tells it."""
        self._socket_path = socket_path
        self._state_dir = state_dir
        self._surroundings = Surroundings(
            queue_mark=marks.queue_mark(state_dir),
            logs=LogFiles(state_dir),
            lock=marks.take_lock(state_dir / "workers" / f"{worker_id}.lock"),
            attempt_lock=AttemptLock(state_dir / "workers" / f"{worker_id}.attempt.lock"),
            devnull=os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC),
            base=clean_environment(),
            groups=groups,
            own_group=cgroups.own_group() if groups is not None else None,
        )
        self._wake = _child_death_descriptor()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._connection: socket.socket | None = None
        self._lines = Lines(framing.MAX_TOLD)
        self._unsent = bytearray()
        """Bytes that the connection could not take yet: at most an attach, an outcome, and the rest of a heartbeat."""
        self._calls: dict[int, str] = {}
        self._next_call = 1
        self._attached = self._was_attached = self._nobody_listens = False
        self._attempt: Attempt | None = None
        self._untold: AttemptResult | None = None
        self._recorded = False
        self._homeless = False
        """The state directory was gone when the exit record was to be written: no daemon will look for the record."""
        self._complained = False
        """The worker has logged that the disk did not take the exit record."""
        self._carried: AttemptResult | None = None
        self._exiting = False
        self._interrupted = False
        self._leave_by: float | None = None
        """Monotonic seconds. The worker has told the daemon that it goes, and waits for the answer until then."""
        self._heartbeat_interval = 5.0
        self._kill_grace = 10.0
        now = time.monotonic()
        self._next_heartbeat = now + self._heartbeat_interval
        self._answer_due: float | None = None
        self._away_since: float | None = now
        self._retries = 0
        self._next_try = now
        self._address = socket_path
        """The address of the present connection, or of the last one."""
        self._next_look = now

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Returns when there is nothing left to do for this worker."""
        while not self._done():
            self._wait()
            self._on_deadlines(time.monotonic())

    def _done(self) -> bool:
        if self._attempt is not None:
            return False
        if self._away_since is not None:
            if self._connection is not None:
                return False  # the answer to the attach may bring an attempt
            if self._untold is not None and not self._recorded and not self._homeless:
                return False  # the outcome is nowhere but in this process
            if self._exiting:
                return True
            if self._nobody_listens and not self._was_attached:
                return True  # its daemon listened before it started this worker, so that daemon is gone
            patience = REPORT_PATIENCE if self._untold else IDLE_PATIENCE
            return time.monotonic() >= self._away_since + patience
        return self._exiting and self._untold is None

    def _wait(self) -> None:
        deadline = min(self._deadlines(), default=None)
        timeout = None if deadline is None else min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT) * 1000
        for descriptor, events in self._poll.poll(timeout):
            if descriptor == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._on_signal()
            elif self._connection is not None:
                if events & select.POLLOUT:
                    self._flush()
                if events & ~select.POLLOUT and self._is_connected():
                    self._on_input()

    def _deadlines(self) -> list[float]:
        found = [self._next_heartbeat] if self._attached else []
        if self._connection is None:
            found.append(self._next_try)
        elif not self._attached:
            found.append(self._next_look)
        if self._attempt is not None and (due := self._attempt.deadline) is not None:
            found.append(due)
        if self._answer_due is not None:
            found.append(self._answer_due)
        if self._leave_by is not None and not self._exiting:
            found.append(self._leave_by)
        return found

    def _on_deadlines(self, now: float) -> None:
        if self._attempt is not None and (due := self._attempt.deadline) is not None and now >= due:
            self._attempt.step()
            self._collect()
        if self._connection is None and now >= self._next_try and not self._done():
            self._connect()
        if self._connection is not None and not self._attached and now >= self._next_look:
            # Another program may have this socket, and never answer; our daemon is elsewhere then.
            self._next_look = now + ADDRESS_PAUSE
            if self._daemon_address() != self._address:
                self._disconnect()
        if self._answer_due is not None and now >= self._answer_due:
            self._answer_due = None
            self._record()
        if self._interrupted and not self._exiting:
            self._leave(now)
        if self._attached and now >= self._next_heartbeat:
            self._next_heartbeat = now + self._heartbeat_interval
            if not self._unsent:  # a daemon that does not read gets no more of them
                self._send(framing.encode_request("worker.heartbeat", NoParams()))

    # --- the attempt --------------------------------------------------------------------------------------------

    def _start(self, lease: Lease) -> None:
        failpoints.hit("worker.leased")
        if self._interrupted:
            # The lease was on its way here when somebody ended this worker: the command does not run, so nothing of
            # it counts.
            self._ended(result_of(lease, Outcome.INTERRUPTED))
            return
        self._attempt = Attempt(lease, self._surroundings, self._kill_grace)
        if self._attempt.delayed_by is not None:
            _say(f"worker {self._id}: job {lease.id} can't be started yet, trying again: {self._attempt.delayed_by}")
        self._collect()

    def _on_signal(self) -> None:
        # First what has ended by itself: it must not be taken for interrupted.
        if self._attempt is not None:
            self._attempt.step()
            self._collect()
        if self._interrupted and self._attempt is not None:
            self._attempt.end(Outcome.INTERRUPTED, self._kill_grace, unasked=True)
            self._collect()

    def _leave(self, now: float) -> None:
        """Somebody ended this worker by a signal: go, but not before the daemon knows.

        A lease may be on its way here. Gone without a word, this worker would be lost with a job that it never ran. So
        it attaches once more: the answer brings such a lease, and `worker.exit` says that none comes any more.
        """
        if self._connection is None:
            self._exiting = True  # there is no daemon to ask
        elif self._leave_by is not None:
            if now >= self._leave_by:
                self._exiting = True
                self._disconnect()
        elif self._attached and self._attempt is None and self._untold is None:
            self._leave_by = now + ANSWER_PATIENCE
            self._disconnect()
            self._connect()

    def _collect(self) -> None:
        """Tell the outcome, if there is one."""
        if self._attempt is not None and self._attempt.result is not None:
            result, self._attempt = self._attempt.result, None
            self._ended(result)

    def _ended(self, result: AttemptResult) -> None:
        self._untold = result
        self._recorded = self._homeless = self._complained = False
        failpoints.hit("worker.ended")
        if self._attached:
            self._tell(self._untold)
        else:
            self._record()

    def _tell(self, result: AttemptResult) -> None:
        self._answer_due = time.monotonic() + ANSWER_PATIENCE
        failpoints.hit("worker.telling")
        self._call("worker.finish", FinishParams(ended=result))
        failpoints.hit("worker.told")

    def _record(self) -> None:
        """Make sure that the outcome outlives this process, now that the daemon can't be told at once."""
        if self._untold is None or self._recorded:
            return
        try:
            exit_records.write(self._state_dir, self._untold)
            self._recorded, self._homeless = True, False
            failpoints.hit("worker.recorded")
        except FileNotFoundError:
            self._homeless = True  # the state directory is gone, for a moment or for good: tried again
        except OSError as error:
            if not self._complained:
                _say(f"worker {self._id}: can't write the exit record of an attempt, trying again: {error}")
            self._complained = True

    def _told(self) -> None:
        """The outcome is committed, or nobody wants it: either way it is not this worker's any more."""
        if self._untold is not None and self._recorded:
            failpoints.hit("worker.confirmed")
            exit_records.remove(self._state_dir, self._untold.job, self._untold.attempt)
            failpoints.hit("worker.cleared")
        self._untold = None
        self._answer_due = None

    # --- the connection -----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._address = self._daemon_address()
            self._connection = _connect(self._address)
        except OSError as error:
            self._nobody_listens = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
            self._retry_later()
            return
        self._poll.register(self._connection, select.POLLIN)
        self._unsent.clear()
        self._next_look = time.monotonic() + ADDRESS_PAUSE
        self._lines = Lines(framing.MAX_TOLD)
        self._calls.clear()
        running = None
        if self._attempt is not None:
            lease = self._attempt.lease
            running = AttemptRef(lease.job, lease.attempt, lease.token)
        self._carried = self._untold
        self._call(
            "worker.attach",
            AttachParams(
                worker=self._id,
                running=running,
                ended=self._untold,
                exiting=self._exiting or self._leave_by is not None,
                mark=self._mark,
            ),
        )

    def _daemon_address(self) -> Path:
        return address.read(self._state_dir) or self._socket_path

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._poll.unregister(self._connection)
            self._connection.close()
        self._connection = None
        self._attached = False
        self._answer_due = None
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._retries = 0
        self._retry_later()

    def _retry_later(self) -> None:
        self._record()
        self._next_try = time.monotonic() + RETRY_PAUSES[min(self._retries, len(RETRY_PAUSES) - 1)]
        self._retries += 1

    def _call(self, method: str, params: AttachParams | FinishParams) -> None:
        number, self._next_call = self._next_call, self._next_call + 1
        self._calls[number] = method
        self._send(framing.encode_request(method, params, number))

    def _send(self, line: bytes) -> None:
        if self._connection is None:
            return
        was_full = bool(self._unsent)
        self._unsent += line
        if not was_full:
            self._flush()
            if self._unsent and self._connection is not None:
                self._poll.modify(self._connection, select.POLLIN | select.POLLOUT)

    def _flush(self) -> None:
        assert self._connection is not None  # noqa: S101 - only called with one
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._disconnect()
            return
        if not self._unsent:
            self._poll.modify(self._connection, select.POLLIN)

    def _on_input(self) -> None:
        assert self._connection is not None  # noqa: S101 - only called with one
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        for line in self._lines.feed(data):
            if line is None:
                self._disconnect()
                return
            try:
                self._on_message(framing.decode_reply(line))
            except ProtocolError as error:
                _say(f"worker {self._id}: {error.message}")
                self._disconnect()
                return
            if not self._is_connected():
                return

    def _is_connected(self) -> bool:
        return self._connection is not None

    def _on_message(self, message: framing.Reply) -> None:
        if message.method is not None:
            self._on_notification(message)
            return
        method = self._calls.pop(message.id, None) if isinstance(message.id, int) else None
        if message.error is not None:
            self._on_refusal(method, message.error)
        elif method == "worker.attach":
            self._on_attached(framing.decode_as(AttachResult, message.result))
        elif method == "worker.finish":
            answer = framing.decode_as(FinishResult, message.result)
            self._told()
            if answer.lease is not None:
                self._start(answer.lease)

    def _on_attached(self, answer: AttachResult) -> None:
        if self._mark and answer.mark != self._mark:
            self._disconnect()  # another queue's daemon has this socket
            return
        self._mark = answer.mark
        if answer.unknown:
            # The queue itself has no use for this worker, nor for what it ran.
            _say(f"worker {self._id}: its queue does not know it")
            self._drop_attempt()
            self._told()
            self._exiting = True
            self._disconnect()
            return
        self._attached = self._was_attached = True
        self._away_since = None
        self._retries = 0
        self._heartbeat_interval, self._kill_grace = answer.heartbeat_interval, answer.kill_grace
        self._next_heartbeat = time.monotonic() + self._heartbeat_interval
        if answer.stale and self._attempt is not None:
            # Somebody decided without us. The tree is ended, and what comes of it is told to nobody.
            self._drop_attempt()
            self._exiting = True
        elif self._untold is not None and self._untold is not self._carried:
            # It ended after the attach was sent, so this answer does not speak of it.
            self._tell(self._untold)
        elif self._attempt is None:
            self._told()
            if answer.lease is not None:
                self._start(answer.lease)

    def _drop_attempt(self) -> None:
        if self._attempt is None:
            return
        self._attempt.kill()
        while self._attempt.result is None:
            self._attempt.step()
            time.sleep(0.001)
        self._attempt = None

    def _on_refusal(self, method: str | None, error: framing.WireError) -> None:
        if method == "worker.finish" and error.data.kind == "conflict":
            self._told()
        else:
            # Not even `forbidden` ends anything: every daemon that has the socket can say it, also another queue's.
            self._disconnect()

    def _on_notification(self, message: framing.Reply) -> None:
        if message.method == "attempt.start":
            if self._attempt is None and self._untold is None:
                self._start(framing.decode_as(AttemptStart, message.params).lease)
        elif message.method == "attempt.end":
            order = framing.decode_as(AttemptEnd, message.params)
            if self._attempt is not None and self._attempt.lease.token == order.attempt.token:
                self._attempt.end(order.outcome, order.kill_grace)
        elif message.method == "worker.config":
            config = framing.decode_as(WorkerConfig, message.params)
            self._heartbeat_interval, self._kill_grace = config.heartbeat_interval, config.kill_grace
            self._next_heartbeat = min(self._next_heartbeat, time.monotonic() + self._heartbeat_interval)
            if self._attempt is not None:
                self._attempt.kill_grace = self._kill_grace
        elif message.method == "worker.exit":
            self._exiting = True

    def interrupt(self) -> None:
        """Somebody wants this process gone, politely: end the attempt as one interrupted by a shutdown, then exit.

        A signal may come in the middle of anything, so this only sets a flag; the wake-up descriptor does the rest.
        """
        self._interrupted = True


def _child_death_descriptor() -> int:
    """A descriptor that becomes readable when a child has died (or any handled signal came)."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return reading


def _connect(path: Path) -> socket.socket:
    """
    Raises:
        BlockingIOError: so many wait there already that one more would have to wait for the daemon.
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            connection.connect(os.fsencode(path))
        else:
            directory = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
    except OSError:
        connection.close()
        raise
    return connection


def _say(text: str) -> None:
    """One line to the daemon's log, unless whoever reads it is gone or does not read."""
    with contextlib.suppress(OSError):
        ready = select.poll()
        ready.register(2, select.POLLOUT)
        if ready.poll(0):
            os.write(2, f"{text}\n".encode()[: select.PIPE_BUF])  # a pipe that is ready takes so many bytes


def _reset_signals() -> None:
    """Take back what the daemon's starter ignored or blocked (nohup, a shell's `&`): jobs would inherit it."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
    start.unblock_signals()


_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
"""A job gets their defaults back when it is started."""


def main() -> NoReturn:
    """`python -m queuectld.worker ID SOCKET STATE_DIR CGROUP MARK`, as the supervisor calls it.

    A daemon before 0.2 under which the program was exchanged gives no MARK.
    """
    _reset_signals()
    worker_id, socket_path, state_dir, groups, mark = (*sys.argv[1:6], "")[:5]
    proc.become_subreaper()
    try:
        worker = Worker(worker_id, Path(socket_path), Path(state_dir), Path(groups) if groups else None, mark)
    except OSError as error:
        _say(f"worker {worker_id}: can't start: {error}")
        sys.exit(1 if error.errno != errno.EWOULDBLOCK else 2)
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.interrupt())
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # not SIG_IGN, which jobs would inherit
    worker.run()
    # Its lock's file stays for the daemon to remove. A daemon that looks for what this worker has left knows it by its
    # inode, which the next new file may get; whoever has that open would be taken for a part of this worker's tree.
    sys.exit(0)
