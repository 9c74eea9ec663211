"""The workers: spawn them, hand them attempts, watch them, end and replace them.

What to do is decided in core; this carries it out. Everything here runs in the event loop's thread, except for what
ends process trees, which may take its time. The store is the truth about who runs what; `Handle.running`
is what this process has told a worker of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from queuectl_protocol.errors import ProtocolError, cut
from queuectl_protocol.jobs import Outcome, Worker
from queuectl_protocol.lines import MAX_LINE
from queuectl_protocol.messages import (
    AttachParams,
    AttachResult,
    AttemptEnd,
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
from queuectld.pool import recovery
from queuectld.pool.dispatch import DISK_PAUSE, Dispatch, is_refused
from queuectld.pool.ending import PROOF_PAUSE, Ending
from queuectld.pool.handles import ATTACH_PATIENCE, Handle, Peer, Running, running_of
from queuectld.pool.orphans import Orphans, Suspect
from queuectld.pool.places import Places
from queuectld.pool.spawning import Spawning
from queuectld.pool.timers import Timers
from queuectld.process_tree import marks, proc
from queuectld.queue.changes import Change
from queuectld.queue.finish import finish
from queuectld.queue.lease import orders
from queuectld.queue.settle import Settled
from queuectld.store.base import RunningAttempt, WorkerRecord
from queuectld.store.committer import Committer

log = logging.getLogger("queuectld.workers")

STOP_MARGIN = 5.0
"""Seconds on top of `kill_grace` that a worker has to end an attempt and tell of it, before it is ended itself."""

PROOF_PATIENCE = 30.0
"""Seconds that a stopping daemon waits for the proof that what it killed is gone: a loaded machine takes its time."""

OLD_WORKERS_LEASE = MAX_LINE - 1024
"""Bytes of a lease that a worker of version 0.1.0 may not be able to read: it drops the connection instead, and comes
again. A worker that comes again without such a job is replaced. Otherwise this would go on for ever."""


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
        settings: the ones in force, asked for each time.
        clock: UNIX seconds.
        disk: nothing is started on a full disk; it waits.
        socket: where workers connect, asked for each time; they look into the state directory too.
        groups: the cgroup v2 directory where attempts get groups of their own, or None.
        state_dir: where locks, logs and exit records are.
        environment: of the workers.
        descriptors: the soft limit of open files that workers and so jobs get; the daemon's own is raised.
        umask: that workers and so jobs get; the daemon's own lets nobody else read.
        mark: of the queue; a worker takes orders from a daemon of its own queue only.
        others_too: children may come to this process that no worker has left.
    """

    def __init__(
        self,
        committer: Committer,
        settings: Callable[[], Settings],
        clock: Clock,
        disk: DiskSpace,
        socket: Callable[[], Path],
        state_dir: Path,
        groups: Path | None,
        environment: Mapping[str, str],
        descriptors: int,
        umask: int,
        mark: str,
        *,
        others_too: bool = False,
    ) -> None:
        self._committer = committer
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._places = Places(state_dir, groups)
        self._mark = mark
        self._boot_id = proc.boot_id()
        self._handles: dict[str, Handle] = {}
        self._desired = 0
        self._throttle = pool.Throttle()
        self._stopping = False
        self._outcome_of_lost = Outcome.LOST
        self._timers = Timers()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawning = Spawning(socket, self._places, environment, descriptors, umask, mark)
        self._dispatch = Dispatch(committer, settings, clock, disk, self._timers, self)
        self._ending = Ending(committer, settings, clock, self._places, self._orphans_of)
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
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._spawning.reap)
        self._spawning.reap()
        recovery.sweep(self._places, workers, running)
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
                handle = Handle(nobody, -1, 0.0, running=running_of(by_worker.get(record.id)))
                self._handles[record.id] = handle
                self._begin_end(handle, "ended while no daemon ran")
            else:  # another boot: no process of it can be left
                handle = Handle(record, -1, 0.0, running=running_of(by_worker.get(record.id)), ending=True)
                self._handles[record.id] = handle
                self._in_background(self._end(handle, Outcome.LOST, is_gone=True))
        self._check_silence_later(self._settings().heartbeat_timeout)
        self._fill_pool()

    def _adopt(self, record: WorkerRecord, attempt: RunningAttempt | None, most_watched: int) -> bool:
        """Take over a worker that lives; False where it does not."""
        pidfd = recovery.living(self._places, record, self._boot_id)
        if pidfd is None:
            return False
        if sum(handle.pidfd >= 0 for handle in self._handles.values()) >= most_watched:
            os.close(pidfd)
            pidfd = -1
        handle = Handle(record, pidfd, time.monotonic(), running=running_of(attempt), was_attached=True)
        self._spawning.adopt(record.pid)
        self._handles[record.id] = handle
        if pidfd >= 0:
            self._watch(handle)
        return True

    async def stop(self, skip: asyncio.Event) -> None:
        """Stop all workers: after their attempts, or after `shutdown_timeout`, or when `skip` is set."""
        self._stopping = True
        self._dispatch.stop()
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
        recovery.sweep_locks(self._places, self._handles.keys())
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything, leaving workers alone: this process is about to end or to re-execute itself."""
        self._stopping = True
        self._dispatch.stop()
        self._timers.cancel_all()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGCHLD)
        for handle in self._handles.values():
            if handle.pidfd >= 0:
                loop.remove_reader(handle.pidfd)
                os.close(handle.pidfd)
                handle.pidfd = -1
        self._ending.give_up()

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
        return self._spawning.is_worker(pid)

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

    def changed(self, changes: Sequence[Change]) -> None:
        """For the change stream."""
        self._dispatch.changed(changes)

    def wake(self) -> None:
        """Jobs may be ready."""
        self._dispatch.wake()

    def offered(self, handle: Handle) -> None:
        handle.parked, handle.offered = False, True

    def leased(self, handle: Handle, lease: Lease, now: float) -> None:
        handle.offered = False
        if handle.listener is not None:
            handle.listener.notify("attempt.start", AttemptStart(lease=lease))
        self._leased(handle, lease, now)
        if handle.retiring:
            self._tell_exit(handle)

    def not_leased(self, handle: Handle) -> None:
        handle.offered = False
        self._park(handle)

    def gave_up(self, unreadable: list[Settled]) -> None:
        for job in unreadable:
            log.error("a job can't be read, and is dead; `queuectl show` tells why", extra={"job": job.id})

    def _leased(self, handle: Handle, lease: Lease, now: float) -> None:
        handle.running = Running(lease.job, lease.id, lease.attempt, lease.token, now)
        log.debug("started", extra={"job": lease.id, "attempt": lease.attempt, "worker": handle.record.id})
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
        self._dispatch.add(handle)

    def _unpark(self, handle: Handle) -> None:
        handle.parked = False
        self._dispatch.remove(handle)

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
            exit_records.remove(self._places.state_dir, params.ended.job, params.ended.attempt)
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
        settings, now, chance, seen = self._settings(), self._clock.now(), random.random(), self._dispatch.wakes  # noqa: S311
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
        self.gave_up(given.unreadable)
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
            self._dispatch.wake_at(given.due)
        if self._dispatch.wakes != seen or low:
            asyncio.get_running_loop().call_soon(self._dispatch.offer)  # after the answer, which the worker waits for
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
        self._timers.set(f"stop {handle.record.id}", handle.stopping_at, lambda: self._overdue(handle))

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
        while not self._ending.is_given_up:
            try:
                if is_gone or await self._ending.prove_gone(
                    handle.record, handle.running.token if handle.running else ""
                ):
                    await self._conclude(handle, lost_as)
            except Exception:
                log.exception("the end of a worker failed, trying again", extra={"worker": handle.record.id})
                await asyncio.sleep(PROOF_PAUSE)
            else:
                return

    async def _conclude(self, handle: Handle, lost_as: Outcome | None) -> None:
        """Settle what a worker had that is proven gone, forget it, and only then replace it."""
        record = handle.record
        while True:
            if await self._ending.settle(record.id, lost_as or self._outcome_of_lost, stopping=self._stopping):
                break
            await asyncio.sleep(DISK_PAUSE)  # the disk is full; its job must not stay `processing` for ever
        failpoints.hit("lost.cleared")
        regular_files.remove(self._places.lock_of(record.id))
        failpoints.hit("lost.unlocked")
        if handle.pidfd >= 0:
            os.close(handle.pidfd)
            handle.pidfd = -1
        self._spawning.forget(record.pid)
        self._handles.pop(record.id, None)
        self._fill_pool()
        self._notice()

    def _orphans_of(self, worker: str) -> list[int]:
        """Children of this process, dead or alive, that a lost worker may have left. Called in threads of their own."""
        return self._orphans.of(worker, self._spawning.other_children(), self._suspects)

    def _suspects(self) -> list[Suspect]:
        return [
            Suspect(
                handle.record.id,
                self._places.mark_of(running.token) if (running := handle.running) else "",
                marks.lock_identity(self._places.lock_of(handle.record.id)),
                handle.ending or not proc.is_alive(handle.record.pid, handle.record.start_ticks),
            )
            for handle in list(self._handles.values())
        ]

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
            self._timers.set("pool", todo.again_at, self._fill_pool)
        return started

    def _spawn(self) -> str | None:
        try:
            spawned = self._spawning.spawn(self._handles)
        except OSError as error:
            log.error("a worker can't be started: %s", error)  # noqa: TRY400 - the reason says it all
            self._throttle = self._throttle.after_failure(time.monotonic())
            self._timers.set("pool", self._throttle.not_before, self._fill_pool)
            return None
        worker_id = spawned.worker
        record = WorkerRecord(worker_id, self._boot_id, spawned.pid, spawned.start_ticks, self._clock.now())
        handle = Handle(record, spawned.pidfd, time.monotonic())
        self._handles[worker_id] = handle
        # Recorded before anything can be leased to it: the queue of operations keeps this order.
        recorded = self._committer.submit(lambda store: store.add_worker(record))
        recorded.add_done_callback(lambda future: self._not_recorded(handle) if is_refused(future) else None)
        self._watch(handle)
        log.info("worker started", extra={"worker": worker_id, "pid": spawned.pid})
        self._check_silence_later(max(self._settings().heartbeat_timeout, ATTACH_PATIENCE))
        return worker_id

    def _not_recorded(self, handle: Handle) -> None:
        self._throttle = self._throttle.after_failure(time.monotonic())
        self._begin_end(handle, "can't be recorded")

    # --- heartbeats ---------------------------------------------------------------------------------------------

    def _check_silence_later(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        self._timers.set("silence", due, lambda: self._check_silence(due), keep_earlier=True)

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

    def _notice(self) -> None:
        self._changed.set()
