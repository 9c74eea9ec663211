"""The workers: spawn them, hand them attempts, watch them, end and replace them.

What to do is decided in core; this carries it out. Everything here runs in the event loop's thread, except for what
ends process trees, which may take its time. The store is the truth about who runs what; `Handle.running`
is what this process has told a worker of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, structs

import queuectl_protocol
import queuectld
from queuectl_protocol.errors import ProtocolError, cut
from queuectl_protocol.jobs import WAITING, Outcome, Worker, WorkerState
from queuectl_protocol.lines import MAX_LINE
from queuectl_protocol.messages import (
    AttachParams,
    AttachResult,
    AttemptEnd,
    AttemptRef,
    AttemptResult,
    AttemptStart,
    FinishResult,
    Lease,
    WorkerConfig,
    WorkerExit,
)
from queuectld import failpoints
from queuectld.attempt_files import exit_records, regular_files
from queuectld.core import leases, pool
from queuectld.core.settings import Settings
from queuectld.host.clock import Clock
from queuectld.host.diskspace import DiskSpace
from queuectld.host.threads import Threads
from queuectld.pool.orphans import Orphans, Suspect
from queuectld.process_tree import cgroups, lost, marks, proc
from queuectld.queue.finish import finish
from queuectld.queue.lease import Given, lease, orders
from queuectld.queue.settle import Settled, attempts_of, settle_worker
from queuectld.queue.watchers import Watchers
from queuectld.store.base import RunningAttempt, WorkerRecord
from queuectld.store.committer import Committer

T = TypeVar("T")

log = logging.getLogger("queuectld.workers")

ATTACH_PATIENCE = 30.0
"""Seconds that a new worker has to attach, at least; a loaded machine starts processes slowly."""

REATTACH_PATIENCE = 10.0
"""Seconds that a worker has to come back after a lost connection, at least; it tries once a second."""

STOP_MARGIN = 5.0
"""Seconds on top of `kill_grace` that a worker has to end an attempt and tell of it, before it is ended itself."""

DISK_PAUSE = 2.0
"""Seconds between two looks whether a full disk has room again; only where a worker waits for work."""

LONGEST_WAIT = 60.0
"""Seconds between two looks at the clock while a job waits for its time: so late it starts after a suspend, at most."""

PROOF_PAUSE = 1.0
"""Seconds between two tries to prove that a worker is gone, where the system does not let us look."""

PROOF_PATIENCE = 30.0
"""Seconds that a stopping daemon waits for the proof that what it killed is gone: a loaded machine takes its time."""

OLD_WORKERS_LEASE = MAX_LINE - 1024
"""Bytes of a lease that a worker of version 0.1.0 may not be able to read: it drops the connection instead, and comes
again. A worker that comes again without such a job is replaced. Otherwise this would go on for ever."""

ENDING_THREADS = 16
"""Process trees that are ended side by side; each looks through all of /proc."""


class Peer(Protocol):
    """The connection of a worker, as far as it matters here."""

    pid: int
    worker: str | None

    def notify(self, method: str, params: Struct) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Running:
    """An attempt that a worker has."""

    job: int
    job_id: str
    attempt: int
    token: str
    started_at: float

    @property
    def ref(self) -> AttemptRef:
        return AttemptRef(self.job, self.attempt, self.token)


@dataclass(slots=True)
class Handle:
    """One worker process, from its spawn until it and all it started are proven gone."""

    record: WorkerRecord
    pidfd: int
    last_seen: float
    running: Running | None = None
    peer: Peer | None = None
    was_attached: bool = False
    turned_away: bool = False
    """The worker came back when there was no room for its connection. It tries again."""
    attach_answered: bool = False
    """The worker's attach on `peer` was answered. Until then the worker is told nothing: an order that overtakes the
    answer may speak of an attempt that the worker does not know yet. Such orders are repeated after the answer."""
    retiring: bool = False
    """The worker gets no more attempts, and exits."""
    dismissed: bool = False
    """The worker's place in the pool is given up: the worker is not replaced."""
    parked: bool = False
    """The worker is attached, idle, and known to wait for an attempt."""
    offered: bool = False
    """An attempt may be committed to the worker at this moment. The worker must not be told to exit before it is known
    whether one was."""
    vanished: bool = False
    """The process is dead. Its connection may still be there, with messages that were not read yet."""
    ending: bool = False
    """What the worker has left is being ended; nothing that it says counts any more."""
    interrupting: bool = False
    """The attempt that the worker runs, or may be given at this moment, is to be interrupted."""
    stopping_at: float | None = field(default=None)
    """Monotonic seconds. The worker was told to end its attempt for a shutdown. Where it has not done so by then, the
    worker itself is ended."""

    @property
    def patience(self) -> float:
        """Seconds that it may be silent for, however short the heartbeats: it can't send any while not connected."""
        if self.peer is not None:
            return 0.0
        return REATTACH_PATIENCE if self.was_attached else ATTACH_PATIENCE

    @property
    def listener(self) -> Peer | None:
        """Who can be told something now."""
        return self.peer if self.attach_answered else None

    @property
    def state(self) -> WorkerState:
        if self.ending:
            return WorkerState.ENDING
        if self.peer is None:
            return WorkerState.DETACHED if self.was_attached else WorkerState.STARTING
        if self.retiring:
            return WorkerState.STOPPING
        return WorkerState.BUSY if self.running else WorkerState.IDLE


@dataclass(frozen=True, slots=True)
class Stop:
    """What a request to stop workers comes to."""

    workers: list[str] | None
    """Ids of those that are to go; None: all that there are when it is carried out."""
    counted: list[str]
    """Those of them that were in the pool."""
    desired: int
    """The size of the pool afterwards."""


class Supervisor:
    """The pool of workers.

    Args:
        committer: where changes are made.
        watchers: told of each job that changed.
        settings: the ones in force, asked for each time.
        clock: UNIX seconds.
        disk: nothing is started on a full disk; it waits.
        socket: where workers connect, asked for each time; they look into the state directory too.
        groups: the cgroup v2 directory where attempts get groups of their own, or None.
        state_dir: where locks, logs and exit records are.
        environment: of the workers.
        ended: told of each attempt that has ended.
        descriptors: the soft limit of open files that workers and so jobs get; the daemon's own is raised.
        umask: that workers and so jobs get; the daemon's own lets nobody else read.
        mark: of the queue; a worker takes orders from a daemon of its own queue only.
        others_too: children may come to this process that no worker has left.
    """

    def __init__(
        self,
        committer: Committer,
        watchers: Watchers,
        settings: Callable[[], Settings],
        clock: Clock,
        disk: DiskSpace,
        socket: Callable[[], Path],
        state_dir: Path,
        groups: Path | None,
        environment: Mapping[str, str],
        descriptors: int,
        umask: int,
        ended: Callable[[], None],
        mark: str,
        *,
        others_too: bool = False,
    ) -> None:
        self._committer = committer
        self._watchers = watchers
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._socket = socket
        self._state_dir = state_dir
        self._groups = groups
        # A checkout that is not installed works too.
        self._environment = {**environment, "PYTHONPATH": _import_path()}
        self._descriptors = descriptors
        self._umask = umask
        self._on_ended = ended
        self._mark = mark
        self._boot_id = proc.boot_id()
        self._queue_mark = marks.queue_mark(state_dir)  # asked for once: the directory may be gone later
        self._handles: dict[str, Handle] = {}
        self._parked: dict[str, Handle] = {}
        self._desired = 0
        self._throttle = pool.Throttle()
        self._stopping = False
        self._outcome_of_lost = Outcome.LOST
        self._wakes = 0
        self._dispatching = False
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending_threads = Threads(ENDING_THREADS, "ending")
        self._give_up = threading.Event()
        # Held while children come and go, so that a look for orphans takes no new worker for one, and misses none.
        self._children = threading.Lock()
        self._worker_pids: set[int] = set()
        self._orphans = Orphans(others_too=others_too)

    # --- start and stop -----------------------------------------------------------------------------------------

    async def recover(
        self, workers: list[WorkerRecord], running: list[RunningAttempt], desired: int, most_watched: int
    ) -> None:
        """Take over what an earlier daemon left, before anything is dispatched.

        A worker that lives is waited for, no longer than `heartbeat_timeout` or REATTACH_PATIENCE, whichever is longer.
        One that does not is settled once its tree is proven gone; until then its job stays `processing`, so nobody
        runs it a second time. Of those that live no more than `most_watched` are watched by a pidfd at once; of the
        others it is noticed when their connections end, or that they are silent.
        """
        self._desired = desired
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._reap()
        self._sweep(workers, running)
        by_worker = {attempt.worker: attempt for attempt in running}
        known = {worker.id for worker in workers}
        gone = [record for record in workers if not self._adopt(record, by_worker.get(record.id), most_watched)]
        failpoints.hit("recovery.adopted")
        # An attempt whose worker is not recorded can't be: the worker is recorded first. Should it be all the same,
        # it must not stay `processing` for ever.
        gone += [
            WorkerRecord(attempt.worker, "", 0, 0, attempt.started_at)
            for attempt in running
            if attempt.worker not in known
        ]
        for record in gone:
            failpoints.hit("recovery.settling")
            if record.boot_id == self._boot_id:
                # Should its PID be alive all the same, it is of another queue, whose database this one is a copy of:
                # not ours to end.
                nobody = WorkerRecord(record.id, record.boot_id, 0, 0, record.started_at)
                handle = Handle(nobody, -1, 0.0, running=_running(by_worker.get(record.id)))
                self._handles[record.id] = handle
                self._begin_end(handle, "ended while no daemon ran")
            else:  # another boot: no process of it can be left
                handle = Handle(record, -1, 0.0, running=_running(by_worker.get(record.id)), ending=True)
                self._handles[record.id] = handle
                self._in_background(self._end(handle, Outcome.LOST, is_gone=True))
        self._check_silence_later(self._settings().heartbeat_timeout)
        self._fill_pool()

    def _sweep(self, workers: list[WorkerRecord], running: list[RunningAttempt]) -> None:
        """Remove exit records and locks that belong to no running attempt and no known worker.

        A daemon or a worker that was killed could not remove its own.
        """
        exit_records.keep_only(self._state_dir, {(attempt.job.number, attempt.number) for attempt in running})
        self._sweep_locks({worker.id for worker in workers})

    def _sweep_locks(self, known: Collection[str]) -> None:
        """A daemon killed between the start of a worker and its record leaves one that no successor knows."""
        for lock in (self._state_dir / "workers").glob("*.lock"):
            with contextlib.suppress(OSError):  # what can't be looked at is no reason not to start
                if lock.stem not in known and marks.lock_is_free(lock):
                    regular_files.remove(lock)

    def _adopt(self, record: WorkerRecord, attempt: RunningAttempt | None, most_watched: int) -> bool:
        if record.boot_id != self._boot_id or record.pid <= 0:
            return False
        pidfd = proc.open_process(record.pid)
        if pidfd is None:
            return False
        # Looked at after the pidfd was taken, so that it is this very process that the pidfd stands for.
        if not (proc.is_alive(record.pid, record.start_ticks) and self._is_ours(record)):
            os.close(pidfd)
            return False
        if sum(handle.pidfd >= 0 for handle in self._handles.values()) >= most_watched:
            os.close(pidfd)
            pidfd = -1
        handle = Handle(record, pidfd, time.monotonic(), running=_running(attempt), was_attached=True)
        self._worker_pids.add(record.pid)
        self._handles[record.id] = handle
        if pidfd >= 0:
            self._watch(handle)
        return True

    def _is_ours(self, record: WorkerRecord) -> bool:
        """Whether a living process is this queue's worker, not that of a queue whose database this one is a copy of.

        A job can let go of the worker's lock (`flock -u`) or remove it; what the worker was started with stays. The
        directory may have another name since; the lock in it is the same.
        """
        if proc.is_worker(record.pid, record.id, self._state_dir):
            return True
        try:
            return not marks.lock_is_free(self._lock_of(record.id))
        except OSError:
            return False

    async def stop(self, skip: asyncio.Event) -> None:
        """Stop all workers: after their attempts, or after `shutdown_timeout`, or when `skip` is set."""
        self._stopping = True
        for handle in list(self._handles.values()):
            self._retire(handle)
        deadline = time.monotonic() + self._settings().shutdown_timeout
        await self._until(lambda: not self._busy(), deadline, skip)
        self._outcome_of_lost = Outcome.INTERRUPTED
        grace = self._settings().kill_grace
        for handle in list(self._handles.values()):
            self._interrupt(handle)
        await self._until(lambda: not self._busy(), time.monotonic() + grace + STOP_MARGIN, None)
        await self._until(lambda: not self._handles, time.monotonic() + STOP_MARGIN, None)
        for handle in list(self._handles.values()):
            self._begin_end(handle, "did not stop in time")
        await self._until(lambda: not self._handles, time.monotonic() + PROOF_PATIENCE, None)
        self._sweep_locks(self._handles.keys())
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything, leaving workers alone: this process is about to end or to re-execute itself."""
        self._stopping = True
        self._give_up.set()
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGCHLD)
        for handle in self._handles.values():
            if handle.pidfd >= 0:
                loop.remove_reader(handle.pidfd)
                os.close(handle.pidfd)
                handle.pidfd = -1
        self._ending_threads.close()

    def _busy(self) -> bool:
        return any(handle.running or handle.offered for handle in self._handles.values())

    async def _until(self, condition: Callable[[], bool], deadline: float, skip: asyncio.Event | None) -> None:
        while not condition() and time.monotonic() < deadline and not (skip and skip.is_set()):
            self._changed.clear()
            waits = {asyncio.ensure_future(self._changed.wait())}
            if skip is not None:
                waits.add(asyncio.ensure_future(skip.wait()))
            _, pending = await asyncio.wait(
                waits, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            for future in pending:
                future.cancel()

    # --- what people ask for ------------------------------------------------------------------------------------

    @property
    def desired(self) -> int:
        return self._desired

    def set_desired(self, count: int) -> list[str]:
        """Bring the pool to `count` workers; the ids of those that were started now."""
        self._desired = count
        return self._fill_pool()

    def plan_stop(self, ids: Iterable[str] | None) -> Stop:
        """What it takes to take workers out of the pool, all of them where `ids` is None. Changes nothing.

        Raises:
            ProtocolError: `not_found`.
        """
        handles = self._handles.values() if ids is None else [self._find(worker) for worker in dict.fromkeys(ids)]
        counted = [handle.record.id for handle in handles if not handle.dismissed]
        # All: also those that are being replaced, or wait for another try to start.
        desired = 0 if ids is None else max(0, self._desired - len(counted))
        return Stop(None if ids is None else [handle.record.id for handle in handles], counted, desired)

    def carry_out(self, stop: Stop, *, now: bool) -> None:
        """Take the workers out of the pool; with `now`, end what they run too."""
        self._desired = stop.desired
        for worker in list(self._handles) if stop.workers is None else stop.workers:
            handle = self._handles.get(worker)  # one may have ended since the plan
            if handle is not None:
                self._retire(handle)
                if now:
                    self._interrupt(handle)
        self._fill_pool()  # one that has ended since the plan was replaced already

    def _find(self, worker: str) -> Handle:
        handle = self._handles.get(worker)
        if handle is None:
            raise ProtocolError("not_found", f"there is no worker {worker}", "`queuectl worker list` shows them")
        return handle

    def end_attempt(self, job: int, outcome: Outcome) -> None:
        """Have the running attempt of a job ended, if it has one; a worker that is not connected is told when it is."""
        for handle in self._handles.values():
            if handle.running is not None and handle.running.job == job:
                self._tell_end(handle, outcome)

    def workers(self) -> list[Worker]:
        """As `worker list` tells them, oldest first."""
        return [
            Worker(
                id=handle.record.id,
                pid=handle.record.pid,
                state=handle.state,
                job=handle.running.job_id if handle.running else None,
                attempt=handle.running.attempt if handle.running else None,
                started_at=datetime.fromtimestamp(handle.record.started_at, UTC),
                job_started_at=datetime.fromtimestamp(handle.running.started_at, UTC) if handle.running else None,
            )
            for handle in self._handles.values()
        ]

    def is_worker(self, pid: int) -> bool:
        return pid in self._worker_pids

    def turned_away(self, pid: int) -> None:
        """A worker came back and there was no room for its connection: it lives, and will try again."""
        for handle in self._handles.values():
            if handle.record.pid == pid:
                handle.last_seen = time.monotonic()
                if not handle.turned_away:
                    handle.turned_away = True
                    self._fill_pool()  # there are more workers than there may be: some go, and make room
                return

    def settings_changed(self) -> None:
        settings = self._settings()
        config = WorkerConfig(heartbeat_interval=settings.heartbeat_interval, kill_grace=settings.kill_grace)
        for handle in self._handles.values():
            # What was promised under the old interval must not be judged by the new timeout.
            handle.last_seen = time.monotonic()
            if handle.listener is not None:
                handle.listener.notify("worker.config", config)
        self._check_silence_later(settings.heartbeat_timeout)

    # --- dispatch -----------------------------------------------------------------------------------------------

    def wake(self, run_at: float | None = None) -> None:
        """Jobs may be ready: now, or at `run_at` (UNIX seconds)."""
        if run_at is not None and run_at > self._clock.now():
            self._wake_at(run_at)
            return
        self._wakes += 1
        self._dispatch()

    def _wake_at(self, run_at: float) -> None:
        # The loop's timers stand still while the machine is suspended, and know nothing of a clock that is set forward.
        wait = min(max(0.0, run_at - self._clock.now()), LONGEST_WAIT)
        self._timer("due", time.monotonic() + wait, self.wake, keep_earlier=True)

    def _dispatch(self) -> None:
        """Give ready jobs to parked workers; one round at a time, and another if something became ready meanwhile."""
        if self._dispatching or self._stopping or not self._parked:
            return
        if self._disk.is_low():
            self._timer("disk", time.monotonic() + DISK_PAUSE, self.wake, keep_earlier=True)
            return
        offered = list(self._parked.values())
        self._parked.clear()
        for handle in offered:
            handle.parked, handle.offered = False, True
        seen, settings, now = self._wakes, self._settings(), self._clock.now()
        workers = [handle.record.id for handle in offered]
        self._dispatching = True
        future = self._committer.submit(lambda store: lease(store, workers, settings, now))

        def done(future: asyncio.Future[Given]) -> None:
            self._dispatching = False
            if self._refused(future):
                # The disk is full or failing: look again, but not at once.
                given = Given([], [], due=self._clock.now() + 1.0)
            else:
                given = future.result()
                self._gave_up(given.unreadable)
                if given.leases:
                    failpoints.hit("lease.committed")
            for handle in offered:
                handle.offered = False
            for handle, leased in zip(offered, given.leases, strict=False):
                if handle.listener is not None:
                    handle.listener.notify("attempt.start", AttemptStart(lease=leased))
                self._leased(handle, leased, now)
                if handle.retiring:
                    self._tell_exit(handle)
            for handle in offered[len(given.leases) :]:
                self._park(handle)
            if given.due is not None:
                self._wake_at(given.due)
            if self._wakes != seen:
                self._dispatch()

        future.add_done_callback(done)

    def _leased(self, handle: Handle, lease: Lease, now: float) -> None:
        handle.running = Running(lease.job, lease.id, lease.attempt, lease.token, now)
        log.debug("started", extra={"job": lease.id, "attempt": lease.attempt, "worker": handle.record.id})
        self._watchers.changed(lease.job, None)
        if handle.interrupting:
            handle.stopping_at = None  # that was for the attempt before
            asyncio.get_running_loop().call_soon(self._interrupt, handle)  # after the message that carries the lease

    def _park(self, handle: Handle) -> None:
        if handle.listener is None or handle.vanished or handle.ending or handle.running is not None or handle.offered:
            return
        if handle.retiring:
            self._tell_exit(handle)
            return
        handle.parked = True
        self._parked[handle.record.id] = handle

    def _unpark(self, handle: Handle) -> None:
        handle.parked = False
        self._parked.pop(handle.record.id, None)

    # --- what workers say ---------------------------------------------------------------------------------------

    async def attach(self, peer: Peer, params: AttachParams) -> AttachResult:
        """A worker's first words, on its first connection or after a lost one.

        Raises:
            ProtocolError: `forbidden` for whoever is not a worker of this daemon, by its PID as the kernel tells it.
        """
        if params.mark not in ("", self._mark):
            log.debug("refused a worker of another queue", extra={"worker": params.worker, "pid": peer.pid})
            raise ProtocolError("forbidden", "this daemon is of another queue than this worker")
        handle = self._handles.get(params.worker)
        if params.mark and (handle is None or handle.ending):
            # Only in an answer that carries the mark it counts: any daemon can refuse a worker.
            log.warning("a worker attached that is not of this queue", extra={"worker": params.worker, "pid": peer.pid})
            return self._attached(unknown=True)
        if handle is None or handle.ending or handle.record.pid != peer.pid:
            raise ProtocolError("forbidden", "only the daemon's own workers may attach")
        if handle.peer is not None and handle.peer is not peer:
            handle.peer.close()
        peer.worker = params.worker
        handle.peer, handle.attach_answered = peer, False
        # A worker that says `exiting` was told to exit by an earlier daemon, which had given up the worker's place.
        handle.retiring = handle.retiring or params.exiting
        handle.dismissed = handle.dismissed or params.exiting
        handle.was_attached = True
        handle.turned_away = False
        handle.last_seen = time.monotonic()
        self._throttle = self._throttle.after_success()
        lease: Lease | None = None
        stale = cancelling = False
        if params.running is not None:
            stale = handle.running is None or handle.running.ref != params.running
        elif params.ended is not None:
            try:
                lease = (await self.finish(peer, params.ended)).lease
            except ProtocolError as refusal:
                # A conflict: settled already, nothing to add. Anything else: not stored, and the worker must keep it.
                if refusal.kind != "conflict":
                    raise
            # By the worker too; but it may be killed before it hears that.
            exit_records.remove(self._state_dir, params.ended.job, params.ended.attempt)
        if handle.running is not None and not stale:
            running, settings = handle.running, self._settings()
            told = await self._committer.submit(
                lambda store: orders(store, running.job, running.attempt, running.token, settings)
            )
            cancelling = told.cancelling
            if params.running is None and lease is None:
                lease = told.lease  # it was given to this worker and never reached it
                if lease is None:
                    self._begin_end(handle, "has a job that can't be read")
                    raise ProtocolError("forbidden", "the job of this worker can't be read any more")
                if len(msgspec.json.encode(lease)) > OLD_WORKERS_LEASE:
                    self._begin_end(handle, "did not take a large job", lost_as=Outcome.INTERRUPTED)
                    raise ProtocolError("forbidden", "this worker did not take its job")
        if handle.peer is peer:  # else it came again meanwhile, or is gone
            # From here to the answer without a pause; what is said from now on is said after it.
            handle.attach_answered = True
            asyncio.get_running_loop().call_soon(self._repeat_orders, handle, peer, stale, cancelling)
        failpoints.hit("attach.done")
        return self._attached(lease, stale=stale)

    def _attached(self, lease: Lease | None = None, *, stale: bool = False, unknown: bool = False) -> AttachResult:
        settings = self._settings()
        return AttachResult(
            heartbeat_interval=settings.heartbeat_interval,
            kill_grace=settings.kill_grace,
            lease=lease,
            stale=stale,
            mark=self._mark,
            unknown=unknown,
        )

    def _repeat_orders(self, handle: Handle, peer: Peer, stale: bool, cancelling: bool) -> None:
        """Tell the worker what it may have missed while it was not connected."""
        if handle.peer is not peer:
            return
        if not stale:
            self._park(handle)
        if cancelling:
            self._tell_end(handle, Outcome.CANCELLED)
        if handle.stopping_at is not None:
            self._tell_end(handle, Outcome.INTERRUPTED)
        if handle.retiring and not handle.offered:  # else it is told when it is known whether it has an attempt
            self._tell_exit(handle)
        self._fill_pool()  # who goes was not known before
        self.wake()

    async def finish(self, peer: Peer, result: AttemptResult) -> FinishResult:
        """An attempt has ended; the answer may carry the next one.

        Raises:
            ProtocolError: `forbidden`; `conflict` where the attempt is not this worker's running one.
        """
        handle = self._handle_of(peer)
        worker = handle.record.id
        settings, now, chance, seen = self._settings(), self._clock.now(), random.random(), self._wakes  # noqa: S311
        low = self._disk.is_low()
        if result.unasked and (self._stopping or handle.interrupting):
            # Whoever ends a session or a machine signals the daemon and its workers at once: a shutdown all the same.
            result = structs.replace(result, unasked=False)
        if result.outcome is Outcome.INTERRUPTED:
            handle.retiring = True  # also where not this daemon asked for it: a worker that got SIGTERM exits
        wants_more = not (handle.retiring or handle.vanished or self._stopping or low)
        failpoints.hit("finish.asked")
        try:
            settled, given = await self._committer.submit(
                lambda store: finish(store, worker, result, settings, now, chance, more=wants_more)
            )
            failpoints.hit("finish.committed")
        except ProtocolError as refusal:
            if refusal.kind == "conflict" and (handle.running is None or handle.running.token == result.token):
                handle.running = None
                self._park(handle)
                self.wake()
            raise
        handle.running = None
        self._ended(settled)
        self._gave_up(given.unreadable)
        if result.outcome in (Outcome.FAILED, Outcome.TIMEOUT):
            fields = {
                "job": settled.id,
                "attempt": result.attempt,
                "error": cut(result.error or ""),
                "state": settled.state,
            }
            log.info("attempt failed", extra=fields)
        leased = given.leases[0] if given.leases else None
        if leased is not None:
            self._leased(handle, leased, now)
        else:
            self._park(handle)
        if given.due is not None:
            self._wake_at(given.due)
        if self._wakes != seen or low:
            asyncio.get_running_loop().call_soon(self._dispatch)  # after the answer, which the worker waits for
        self._notice()
        return FinishResult(lease=leased)

    def heartbeat(self, peer: Peer) -> None:
        self._handle_of(peer)

    def _handle_of(self, peer: Peer) -> Handle:
        handle = self._handles.get(peer.worker or "")
        if handle is None or handle.peer is not peer or handle.ending:
            raise ProtocolError("forbidden", "only the daemon's own workers may call this, after they have attached")
        handle.last_seen = time.monotonic()
        return handle

    def detached(self, peer: Peer) -> None:
        """A connection was lost. The worker, if it lives, comes back; its attempt goes on."""
        handle = self._handles.get(peer.worker or "")
        if handle is not None and handle.peer is peer:
            handle.peer = None
            self._unpark(handle)
            if handle.pidfd < 0 and not handle.ending:
                self._watch_unwatched(handle)
            if handle.vanished:
                self._vanished(handle)

    def _watch_unwatched(self, handle: Handle) -> None:
        """There was no descriptor to watch this worker by; its connection has just left one."""
        record = handle.record
        try:
            pidfd = proc.open_process(record.pid)
        except OSError:
            return  # none left: its silence will tell
        if pidfd is None:
            handle.vanished = True
        else:
            handle.pidfd = pidfd
            handle.vanished = not proc.is_alive(record.pid, record.start_ticks)
            self._watch(handle)

    # --- the ends of workers ------------------------------------------------------------------------------------

    def _retire(self, handle: Handle) -> None:
        """No more attempts after the current one, and nobody in its place."""
        handle.retiring = handle.dismissed = True
        self._unpark(handle)
        if handle.offered:
            return  # told when it is known whether it has an attempt
        if handle.peer is not None:
            self._tell_exit(handle)
        elif not handle.was_attached and not handle.ending:
            self._begin_end(handle, "stopped before it had started", expected=True)

    def _tell_exit(self, handle: Handle) -> None:
        if handle.listener is not None:
            handle.listener.notify("worker.exit", WorkerExit())

    def _interrupt(self, handle: Handle) -> None:
        """End its attempt for a shutdown; if it does not manage to, end the worker."""
        handle.interrupting = True
        if handle.running is None or handle.stopping_at is not None:
            return
        handle.stopping_at = time.monotonic() + self._settings().kill_grace + STOP_MARGIN
        self._tell_end(handle, Outcome.INTERRUPTED)
        self._timer(f"stop {handle.record.id}", handle.stopping_at, lambda: self._overdue(handle))

    def _overdue(self, handle: Handle) -> None:
        if handle.running is not None and not handle.ending:
            self._begin_end(handle, "did not end its attempt in time", lost_as=Outcome.INTERRUPTED)

    def _tell_end(self, handle: Handle, outcome: Outcome) -> None:
        if handle.listener is not None and handle.running is not None:
            order = AttemptEnd(attempt=handle.running.ref, outcome=outcome, kill_grace=self._settings().kill_grace)
            handle.listener.notify("attempt.end", order)

    def _watch(self, handle: Handle) -> None:
        asyncio.get_running_loop().add_reader(handle.pidfd, self._vanished, handle)

    def _vanished(self, handle: Handle) -> None:
        """The process has ended: because it was told to, or because somebody killed it."""
        if not handle.was_attached:
            self._throttle = self._throttle.after_failure(time.monotonic())
        handle.vanished = True
        self._unpark(handle)
        if handle.peer is not None:
            # What it said last counts, and may be unread or half done: its connection ends once all is answered.
            asyncio.get_running_loop().remove_reader(handle.pidfd)
            return
        expected = handle.retiring and handle.running is None
        self._begin_end(handle, "exited" if expected else "vanished", expected=expected)

    def _begin_end(self, handle: Handle, why: str, *, expected: bool = False, lost_as: Outcome | None = None) -> None:
        """End what is left of a worker and its job, prove it, settle the attempt, and only then replace the worker."""
        if handle.ending:
            return
        handle.ending = True
        self._unpark(handle)
        if handle.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(handle.pidfd)
        if handle.peer is not None:
            handle.peer.close()
            handle.peer = None
        level = logging.DEBUG if expected else logging.WARNING
        log.log(level, "worker %s", why, extra={"worker": handle.record.id, "pid": handle.record.pid})
        self._in_background(self._end(handle, lost_as))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, handle: Handle, lost_as: Outcome | None, *, is_gone: bool = False) -> None:
        """End what a worker has left, settle what it had, and replace it, whatever goes wrong on the way.

        A worker whose end stops halfway would keep its job `processing`, and its place in the pool, for ever.
        """
        while not self._give_up.is_set():
            try:
                if is_gone or await self._is_ended(handle):
                    await self._conclude(handle, lost_as)
            except Exception:
                log.exception("the end of a worker failed, trying again", extra={"worker": handle.record.id})
                await asyncio.sleep(PROOF_PAUSE)
            else:
                return

    async def _is_ended(self, handle: Handle) -> bool:
        """End what a worker and its job have left; True with the proof, False where this daemon ends before."""
        record = handle.record
        lock = self._lock_of(record.id)
        running = handle.running
        mark = self._marker_of(running) if running else ""
        group = cgroups.Group(self._groups, mark) if mark and self._groups else None

        def end() -> bool:
            while not self._give_up.is_set():
                try:
                    return lost.end_lost_tree(
                        worker=(record.pid, record.start_ticks),
                        lock=lock,
                        mark=mark,
                        group=group,
                        orphans=lambda: self._orphans_of(record.id),
                        give_up=self._give_up.is_set,
                    )
                except OSError as error:  # no descriptor left to look into /proc: no proof, so no end yet
                    log.error("can't prove yet that worker %s is gone: %s", record.id, error)  # noqa: TRY400
                    self._give_up.wait(PROOF_PAUSE)
            return False

        failpoints.hit("lost.noticed")
        if self._give_up.is_set():
            return False  # the threads have ended; a successor goes on with this
        proven = await self._ending_threads.run(end)
        if proven:
            failpoints.hit("lost.proven")
        return proven

    async def _conclude(self, handle: Handle, lost_as: Outcome | None) -> None:
        """Settle what a worker had that is proven gone, forget it, and only then replace it."""
        record = handle.record
        stored = await self._settle(record.id, lost_as or self._outcome_of_lost)
        while not stored:  # the disk is full; its job must not stay `processing` for ever
            await asyncio.sleep(DISK_PAUSE)
            stored = await self._settle(record.id, lost_as or self._outcome_of_lost)
        failpoints.hit("lost.cleared")
        regular_files.remove(self._lock_of(record.id))
        failpoints.hit("lost.unlocked")
        if handle.pidfd >= 0:
            os.close(handle.pidfd)
            handle.pidfd = -1
        self._worker_pids.discard(record.pid)
        self._handles.pop(record.id, None)
        self._fill_pool()
        self._notice()

    def _marker_of(self, running: Running) -> str:
        return f"{running.token}{self._queue_mark}"

    def _lock_of(self, worker: str) -> Path:
        return self._state_dir / "workers" / f"{worker}.lock"

    async def _settle(self, worker: str, lost_as: Outcome) -> bool:
        """Whether it could be stored."""
        settings, chance = self._settings(), random.random()  # noqa: S311
        records: dict[tuple[int, int], AttemptResult] = {}
        try:
            # Nothing is leased to a worker that is gone: what it runs now is what it runs in the transaction below.
            attempts = await self._committer.submit(lambda store: attempts_of(store, worker))
            for job, attempt in attempts:
                record = exit_records.read(self._state_dir, job, attempt)
                if record is not None:
                    unasked = record.unasked and not self._stopping
                    records[job, attempt] = structs.replace(record, unasked=unasked)
            # Not before: a clock that is set back meanwhile takes along only what was submitted until then.
            now = self._clock.now()
            settled = await self._committer.submit(
                lambda store: settle_worker(store, worker, lost_as, records, settings, now, chance)
            )
        except ProtocolError as refusal:
            log.error("the end of a worker could not be stored: %s", refusal.message)  # noqa: TRY400 - it says all
            return False
        except OSError as error:
            log.error("an exit record can't be looked for now, trying again: %s", error)  # noqa: TRY400 - it says all
            return False
        failpoints.hit("lost.committed")
        for job, attempt in attempts:  # only now, when what they said is on disk
            exit_records.remove(self._state_dir, job, attempt)
        for job_end in settled:
            log.warning("attempt settled without its worker", extra={"job": job_end.id, "state": job_end.state})
            self._ended(job_end)
        return True

    def _gave_up(self, unreadable: list[Settled]) -> None:
        for job in unreadable:
            log.error("a job can't be read, and is dead; `queuectl show` tells why", extra={"job": job.id})
            self._ended(job)

    def _ended(self, settled: Settled) -> None:
        self._watchers.changed(settled.number, settled.end)
        self._on_ended()
        if settled.state in WAITING:
            self.wake(settled.run_at)

    def _orphans_of(self, worker: str) -> list[int]:
        """Children of this process, dead or alive, that a lost worker may have left. Called in threads of their own."""
        with self._children:
            found = [pid for pid in proc.children(os.getpid()) if pid not in self._worker_pids]
        return self._orphans.of(worker, found, self._suspects)

    def _suspects(self) -> list[Suspect]:
        return [
            Suspect(
                handle.record.id,
                self._marker_of(running) if (running := handle.running) else "",
                marks.lock_identity(self._lock_of(handle.record.id)),
                handle.ending or not proc.is_alive(handle.record.pid, handle.record.start_ticks),
            )
            for handle in list(self._handles.values())
        ]

    def _reap(self) -> None:
        """Collect every dead child: workers, and orphans of dead workers, which come to this process as a subreaper."""
        with self._children, contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    # --- the pool -----------------------------------------------------------------------------------------------

    def _fill_pool(self) -> list[str]:
        if self._stopping:
            return []
        now = time.monotonic()
        members = [handle for handle in self._handles.values() if not handle.retiring and not handle.ending]
        busy = [handle.record.id for handle in members if handle.running]
        idle = [handle.record.id for handle in members if not handle.running]
        todo = pool.plan(self._desired, busy, idle, self._throttle, now)
        if not any(handle.was_attached and handle.peer is None and not handle.turned_away for handle in members):
            # Else one that is away may have been told to go by a daemon before this one: it says so when it is back.
            for worker in todo.retire:
                self._retire(self._handles[worker])
        started = []
        for _ in range(todo.start):
            worker_id = self._spawn()
            if worker_id is None:
                break
            started.append(worker_id)
        if todo.again_at is not None:
            self._timer("pool", todo.again_at, self._fill_pool)
        return started

    def _spawn(self) -> str | None:
        worker_id = f"w{secrets.token_hex(3)}"
        while worker_id in self._handles:
            worker_id = f"w{secrets.token_hex(3)}"
        arguments = [worker_id, str(self._socket()), str(self._state_dir), str(self._groups or ""), self._mark]
        # UTF-8 whatever the locale is: commands and paths come as JSON, and a letter must not end the worker.
        command = [sys.executable, "-X", "utf8", "-P", "-m", "queuectld.worker", *arguments]
        try:
            with self._children:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    cwd="/",
                    start_new_session=True,
                    umask=self._umask,
                )
                self._worker_pids.add(child.pid)
            child.returncode = 0  # reaped by _reap, with all other children
            pidfd, ticks = self._take_charge_of(child.pid)
        except OSError as error:
            log.error("a worker can't be started: %s", error)  # noqa: TRY400 - the reason says it all
            self._throttle = self._throttle.after_failure(time.monotonic())
            self._timer("pool", self._throttle.not_before, self._fill_pool)
            return None
        record = WorkerRecord(worker_id, self._boot_id, child.pid, ticks, self._clock.now())
        handle = Handle(record, pidfd, time.monotonic())
        self._handles[worker_id] = handle
        # Recorded before anything can be leased to it: the queue of operations keeps this order.
        recorded = self._committer.submit(lambda store: store.add_worker(record))
        recorded.add_done_callback(lambda future: self._not_recorded(handle) if self._refused(future) else None)
        self._watch(handle)
        log.info("worker started", extra={"worker": worker_id, "pid": child.pid})
        self._check_silence_later(max(self._settings().heartbeat_timeout, ATTACH_PATIENCE))
        return worker_id

    def _take_charge_of(self, pid: int) -> tuple[int, int]:
        """Set the limits of a worker that was started just now; its pidfd, and its start time in ticks.

        Raises:
            OSError: that can't be done. The process is ended, and nothing is left open.
        """
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            # Somebody may have lowered the hard limit since this daemon started.
            soft = self._descriptors if hard == resource.RLIM_INFINITY else min(self._descriptors, hard)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            entry = proc.process(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # it is a child that was not reaped yet, so the PID is its own
            self._worker_pids.discard(pid)
            if pidfd >= 0:
                os.close(pidfd)
            raise
        return pidfd, entry.start_ticks if entry else 0

    def _not_recorded(self, handle: Handle) -> None:
        self._throttle = self._throttle.after_failure(time.monotonic())
        self._begin_end(handle, "can't be recorded")

    # --- heartbeats ---------------------------------------------------------------------------------------------

    def _check_silence_later(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        self._timer("silence", due, lambda: self._check_silence(due), keep_earlier=True)

    def _check_silence(self, due: float) -> None:
        now, timeout = time.monotonic(), self._settings().heartbeat_timeout
        watched = {worker: handle for worker, handle in self._handles.items() if not handle.ending}
        if leases.overslept(due, now, timeout):
            for handle in watched.values():
                handle.last_seen = now
        seen = {worker: handle.last_seen + max(0.0, handle.patience - timeout) for worker, handle in watched.items()}
        verdict = leases.check(seen, timeout, now)
        for worker in verdict.silent:
            if not watched[worker].was_attached:
                self._throttle = self._throttle.after_failure(now)
            self._begin_end(watched[worker], "is silent")
        if verdict.again_at is not None:
            self._check_silence_later(verdict.again_at - now + 0.01)

    # --- small things -------------------------------------------------------------------------------------------

    def _timer(self, name: str, when: float, call: Callable[[], object], *, keep_earlier: bool = False) -> None:
        """Have `call` run at `when` (monotonic seconds); one timer a name."""
        old = self._timers.get(name)
        if old is not None:
            if keep_earlier and old[0] <= when:
                return
            old[1].cancel()
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.pop(name, None)
            call()

        self._timers[name] = (when, loop.call_later(max(0.0, when - time.monotonic()), run))

    def _notice(self) -> None:
        self._changed.set()

    @staticmethod
    def _refused(future: asyncio.Future[T]) -> bool:
        if future.cancelled():
            return True
        error = future.exception()
        if error is not None:
            log.error("a change could not be stored: %s", error)
        return error is not None


def _running(attempt: RunningAttempt | None) -> Running | None:
    if attempt is None:
        return None
    return Running(attempt.job.number, attempt.job.id, attempt.number, attempt.token, attempt.started_at)


def _import_path() -> str:
    """PYTHONPATH with which a worker finds this code, also in a checkout, where the protocol has its own folder."""
    homes = (Path(queuectld.__file__).parent.parent, Path(queuectl_protocol.__file__).parent.parent)
    return os.pathsep.join(dict.fromkeys(map(str, homes)))
