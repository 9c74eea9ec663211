"""Places where tests kill the daemon or a worker, one by one, to see what the guarantees are worth there.

Off unless QUEUECTLD_FAILPOINT names one when the process starts. Then the process that comes to it ends itself with
SIGKILL, as the kernel would end it: nothing is flushed, nothing cleaned up, no handler runs.

    QUEUECTLD_FAILPOINT=worker.spawned               at the first time
    QUEUECTLD_FAILPOINT=worker.spawned:3             at the third time
    QUEUECTLD_FAILPOINT="lease.chosen>commit.before" at the commit that holds a lease: each step counts after the last

Workers inherit the variable from the daemon; jobs do not. QUEUECTLD_FAILPOINT_MARK names a file that is created by the
process that ends itself, with its PID in it; while the file is there no other process does, so only one dies.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "QUEUECTLD_FAILPOINT"
MARK_VARIABLE = "QUEUECTLD_FAILPOINT_MARK"

FAILPOINTS = {
    # the daemon: start
    "start.locked": "the state directory is locked, nothing of it was looked at",
    "start.opened": "the database is open, nobody listens yet",
    "start.bound": "the socket's file is there, the descriptor is not served",
    "recovery.adopted": "workers that live were taken over, those that do not were not looked at",
    "recovery.settling": "before one worker that is gone is settled",
    "recovery.recovered": "everything was taken over, new workers are started, no connection was adopted",
    "recovery.listening": "clients are served, nothing was dispatched",
    # the daemon: every transaction; use them as the second step of a chain
    "commit.before": "all operations of a transaction are done, it is not committed",
    "commit.after": "the COMMIT is on disk, nobody was told",
    # the daemon: requests
    "enqueue.asked": "an enqueue was understood, it is in no transaction",
    "enqueue.inserted": "inside the transaction that holds it",
    "enqueue.committed": "before the reply",
    "cancel.marked": "inside the transaction that marks or cancels jobs",
    "cancel.committed": "before the worker is told, and before the reply",
    # the daemon: attempts
    "lease.chosen": "inside the transaction that leases jobs to workers",
    "lease.committed": "before the workers are told",
    "finish.asked": "an outcome was received, it is in no transaction",
    "finish.settled": "inside the transaction that holds it, and perhaps the worker's next lease",
    "finish.committed": "before the worker is told",
    "attach.done": "a worker has attached, what it brought is committed, it was not answered",
    # the daemon: a worker that is gone
    "lost.noticed": "before its process tree is ended",
    "lost.proven": "its process tree is proven gone, its attempt is not settled",
    "lost.settled": "inside the transaction that settles the attempt",
    "lost.committed": "before its exit record is removed",
    "lost.cleared": "its exit record is removed, its lock is not",
    "lost.unlocked": "its lock is removed, it is not replaced",
    # the daemon: re-execution
    "reexec.asked": "before answers are waited for",
    "reexec.quiet": "everything is answered and committed, the store is closed, before the exec",
    "reexec.executed": "the new program runs, nothing was taken over",
    "reexec.taken": "locks, sockets and requests were taken over",
    # the daemon: a stop
    "stop.asked": "before workers are told",
    "stop.workers": "all workers are gone, answers may be due",
    "stop.answered": "everything is answered, the store is open",
    "stop.closed": "the store is closed, the stop does not count as clean yet",
    "stop.clean": "it does, the socket's file is still there",
    # the daemon: removal and copies
    "purge.committed": "jobs were purged from the dead letter queue, their logs were not removed",
    "retention.committed": "old jobs were deleted, their logs were not removed",
    "backup.copied": "the copy is whole and on disk, under its temporary name",
    # a worker
    "worker.leased": "an attempt was received, nothing was done for it",
    "worker.spawning": "its log is open, before the job is spawned",
    "worker.spawned": "the job runs",
    "worker.ended": "the attempt has ended, nobody was told",
    "worker.telling": "before the outcome is sent to the daemon",
    "worker.told": "the outcome was sent, the answer was not read",
    "worker.record.written": "the exit record is written, under its temporary name and not on disk",
    "worker.record.synced": "it is on disk, under its temporary name",
    "worker.record.renamed": "it has its name, the directory is not on disk",
    "worker.recorded": "it is on disk",
    "worker.confirmed": "the daemon has the outcome, the exit record is not removed",
    "worker.cleared": "the exit record is removed",
}
"""Name -> what is done by then, and what is not."""

_steps: list[tuple[str, int]] = []
_mark = os.environ.get(MARK_VARIABLE)
_lock = threading.Lock()  # the event loop's thread and the committer's come by


def _parse(given: str) -> list[tuple[str, int]]:
    steps = []
    for step in given.split(">"):
        name, _, times = step.partition(":")
        if name not in FAILPOINTS or not (times or "1").isdecimal():
            raise SystemExit(f"{VARIABLE}: there is no failpoint {step!r}")
        steps.append((name, int(times or "1")))
    return steps


_armed = bool(os.environ.get(VARIABLE))
if _armed:
    _steps += _parse(os.environ[VARIABLE])


def hit(name: str) -> None:
    """Being at `name`: end this process, if it is to end here."""
    if _armed:
        _come_to(name)


def _come_to(name: str) -> None:
    with _lock:
        if not _steps or _steps[0][0] != name:
            return
        _, times = _steps.pop(0)
        if times > 1:
            _steps.insert(0, (name, times - 1))
        elif not _steps and _is_mine():
            os.kill(os.getpid(), signal.SIGKILL)


def _is_mine() -> bool:
    if _mark is None:
        return True
    try:
        descriptor = os.open(_mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.close(descriptor)
    return True
