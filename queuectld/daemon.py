"""The daemon, put together: the only file that names a concrete store. Start-up and shutdown, in order."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import JobState
from queuectl_protocol.version import __version__
from queuectld import failpoints
from queuectld.attempt_files import regular_files
from queuectld.core.settings import with_overrides
from queuectld.handlers import HANDLERS
from queuectld.handlers.context import About, Context
from queuectld.handlers.log_watches import LogWatches
from queuectld.host import claims, handover, limits, sdnotify, socket_file, successor
from queuectld.host.clock import Clock
from queuectld.host.diskspace import DiskSpace
from queuectld.host.listening import Listening
from queuectld.host.start_error import StartError
from queuectld.host.statusline import StatusLine
from queuectld.host.threads import Threads
from queuectld.pool import orphans
from queuectld.pool.supervisor import Supervisor
from queuectld.process_tree import cgroups, marks, proc
from queuectld.queue import configure, setback
from queuectld.queue.changes import ChangeStream
from queuectld.queue.sweep import Sweeper
from queuectld.queue.watchers import Watchers
from queuectld.store.base import (
    GivenUp,
    OutOfTime,
    RunningAttempt,
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageUnavailable,
    Store,
    WorkerRecord,
)
from queuectld.store.committer import Committer
from queuectld.store.readers import Readers
from queuectld.store.sqlite import open_store, rehearse_opening
from queuectld.wire.access import Access
from queuectld.wire.server import Server, check_handlers

log = logging.getLogger("queuectld")

QUIESCE = 5.0
"""Seconds that answers which are due have, before a re-execution or the end."""

STOP_MARGIN = 60.0
"""Seconds that a stop may take beyond what the settings allow: for proofs of death, the last answers, the disk."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person can decide at the start; see cli.py."""

    state_dir: Path
    socket: Path | None
    """None: one that systemd passes, else where paths.daemon_socket says."""
    workers: int | None
    socket_group: str | None
    cgroup: Path | None


INTEGRITY_PATIENCE = 60.0
"""Seconds that the check of the database may take after an unclean stop."""

INTEGRITY_VARIABLE = "QUEUECTLD_CHECK_SECONDS"
"""Overrides INTEGRITY_PATIENCE: the seam through which tests have a check that takes too long."""


class Ending(enum.Enum):
    STOP = enum.auto()
    REEXECUTE = enum.auto()
    STORAGE_FAILED = enum.auto()


def run(options: Options) -> int:
    """Serve until told to stop; the exit status.

    Raises:
        StartError: with nothing changed for a daemon that runs already.
        StorageError: the store can't be opened; it was not touched.
    """
    umask = os.umask(0o077)
    # Until there is a handler for it, a reload would end this process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    inherited = handover.take_over(os.environ)
    # A descriptor that systemd passed is marked as closed on exec before anything can be spawned.
    passed = [] if inherited else sdnotify.listen_fds(os.environ)
    group = socket_file.group_id(options.socket_group)
    if inherited is None:
        held = claims.claim_directory(options.state_dir)
        descriptors = limits.raise_descriptor_limit()
    else:
        failpoints.hit("reexec.taken")
        held = claims.take_over_directory(inherited, options.state_dir)
        descriptors, umask = inherited.descriptors, inherited.umask
    options = replace(options, state_dir=held.path)
    store = open_store(held.path / "queue.db")
    failpoints.hit("start.opened")
    if inherited is None:
        listening = claims.claim_socket(held.path, options.socket, passed, group, os.environ)
    else:
        listening = claims.take_over_socket(held.path, inherited, options.socket, group, os.environ)
    # After an exec, the children are those of the process before it: they say nothing of others.
    others_too = (inherited.others_too or os.getpid() == 1) if inherited else orphans.may_get_others()
    proc.become_subreaper()
    listening.publish()
    daemon = _Daemon(options, listening, store, held, descriptors, umask, inherited, others_too)
    with asyncio.Runner() as runner:
        ending = runner.run(daemon.serve())
        if ending is Ending.REEXECUTE:
            daemon.reexecute()
    listening.close()
    return 1 if ending is Ending.STORAGE_FAILED else 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What the daemon before has left in the store."""

    workers: list[WorkerRecord]
    running: list[RunningAttempt]
    counts: dict[JobState, int]
    desired: int
    """The size of the pool."""


class _Daemon:
    def __init__(
        self,
        options: Options,
        listening: Listening,
        store: Store,
        held: claims.Directory,
        descriptors: int,
        umask: int,
        inherited: handover.Handover | None,
        others_too: bool,
    ) -> None:
        self._options = options
        self._others_too = others_too
        self._listening = listening
        self._store = store
        self._held = held
        self._descriptors = descriptors
        self._umask = umask
        self._inherited = inherited
        mark = _running_mark(options.state_dir)
        self._unclean = mark.exists() if inherited is None else inherited.unclean
        with contextlib.suppress(OSError):  # no room for it: then a damage will be found when it is come upon
            mark.touch(mode=0o600)
        self._started_at = inherited.started_at if inherited else time.time()
        self._generation = inherited.generation if inherited else 0
        self._ending: asyncio.Future[Ending] | None = None
        self._broken: asyncio.Future[None]
        self._skip = asyncio.Event()
        self._status = StatusLine()
        self._connections: list[handover.Passed] = []
        self._checking = False
        self._trial: successor.Trial | None = None

    async def serve(self) -> Ending:
        """Serve from the recovery to the end, in order; how it ends."""
        loop = asyncio.get_running_loop()
        self._ending, self._broken = loop.create_future(), loop.create_future()
        async with contextlib.AsyncExitStack() as stack:
            context, server, found = self._put_together(stack)
            await self._recover(context, server, found)
            background = self._begin_background_work(context, server)
            stack.callback(lambda: [task.cancel() for task in background])
            if not self._ending.done():
                self._status.ready(found.counts, len(context.supervisor.workers()))
                _log_ready(context.about, self._listening.address)
            asked = await self._ending
            if self._trial is not None:
                self._trial.give_up()
            await self._come_to_rest(asked, context, server)
            context.ending = True
        if self._outcome is Ending.STOP:
            failpoints.hit("stop.closed")
            regular_files.remove(_running_mark(self._options.state_dir))
            failpoints.hit("stop.clean")
        if self._outcome is Ending.REEXECUTE:
            await self._hold_back_signals()
        return self._outcome

    @property
    def _outcome(self) -> Ending:
        """How the daemon ends. A failed store, or a fault before anybody asked for an end, leaves no choice."""
        assert self._ending is not None  # noqa: S101 - asked for by `serve` only
        failed = self._broken.done() or not self._ending.done()
        return Ending.STORAGE_FAILED if failed else self._ending.result()

    def _put_together(self, stack: contextlib.AsyncExitStack) -> tuple[Context, Server, _Found]:
        """Make all parts of the daemon. `stack` gets what takes them apart again, in the order that the end needs."""
        state_dir, store = self._options.state_dir, self._store
        clock, watchers, disk = Clock(), Watchers(), DiskSpace(state_dir)
        disk.keep_reserve()
        changes = ChangeStream()
        committer = Committer(store, self._storage_failed, disk.give_up_reserve, changes.publish)
        setback.at_start(store, clock)
        found = _Found(store.workers(), store.running(), store.counts(), store.desired_workers())
        settings = with_overrides(store.settings())
        groups = self._options.cgroup or cgroups.delegated_group(os.environ)
        if groups is not None:
            in_use = {marks.marker(state_dir, attempt.token) for attempt in found.running}
            cgroups.remove_empty(groups, marks.queue_mark(state_dir), in_use)
        stack.callback(self._close_store)
        readers = Readers(store.reader)
        stack.callback(readers.close)  # not before: those who wait look again when what they wait for happens
        background_work = Threads(4, "background")
        stack.callback(background_work.close)
        log_files = Threads(4, "log")
        stack.callback(log_files.close, drop_waiting=True)
        log_watches = LogWatches(log_files)
        stack.callback(log_watches.close)
        context: Context
        sweeper = Sweeper(committer, readers, lambda: context.settings, clock, state_dir, background_work)
        supervisor = Supervisor(
            committer,
            lambda: context.settings,
            clock,
            disk,
            lambda: self._listening.address,
            state_dir,
            groups,
            sdnotify.clean_environment(os.environ),
            self._descriptors,
            self._umask,
            # A copied state directory has the same database, and is another directory.
            store.identity() + marks.queue_mark(state_dir),
            others_too=self._others_too,
        )
        for tell in (watchers.changed, supervisor.changed, sweeper.changed, self._status.changed):
            changes.subscribe(tell)
        about = About(
            pid=os.getpid(),
            started_at=datetime.fromtimestamp(self._started_at, UTC),
            generation=self._generation,
            state_dir=state_dir,
            containment="cgroup" if groups else "subreaper",
            most_workers=limits.worker_limit(),
        )
        context = Context(
            about, committer, readers, store.maintenance, supervisor, watchers, clock, disk, sweeper, log_files,
            log_watches, background_work, settings, self._listening,
        )  # fmt: skip
        check_handlers(HANDLERS)
        server = Server(
            context,
            dict(HANDLERS),
            Access(os.geteuid(), self._listening.group),
            limits.connection_limit(),
            supervisor.detached,
            supervisor.is_worker,
            limits.workers_at_once(),
            supervisor.turned_away,
        )
        stack.push_async_callback(self._part_with_peers, server, watchers)
        committer.start()  # from here on the committer's thread owns the store
        stack.push_async_callback(committer.stop)
        stack.callback(supervisor.abandon)
        return context, server, found

    async def _recover(self, context: Context, server: Server, found: _Found) -> None:
        """Take over what the daemon before has left: the size of the pool, workers, connections."""
        self._handle_signals(asyncio.get_running_loop(), context)
        desired, most = found.desired, context.about.most_workers
        if self._options.workers is not None and self._inherited is None:
            desired = self._options.workers
            try:
                await context.committer.submit(lambda store: configure.resize(store, desired))
            except ProtocolError as refusal:  # a full disk does not keep running jobs from being finished
                log.warning("the size of the pool could not be stored: %s", refusal.message)
        if desired > most:
            log.warning(
                "the limit of open files leaves room for fewer workers", extra={"wanted": desired, "started": most}
            )
        await context.supervisor.recover(found.workers, found.running, min(desired, most), limits.workers_at_once())
        failpoints.hit("recovery.recovered")
        for passed in self._inherited.connections if self._inherited else []:
            await server.adopt(socket.socket(fileno=passed.descriptor), passed.waiting, too_long=passed.too_long)
        server.listen(self._listening.listener)
        failpoints.hit("recovery.listening")
        context.supervisor.wake()

    def _begin_background_work(self, context: Context, server: Server) -> list[asyncio.Task[None]]:
        counts = self._status.run(
            lambda: context.readers.run(lambda reader: reader.counts()),
            lambda: len(context.supervisor.workers()),
            lambda: context.stopping,
        )
        background = [
            _in_background(_watchdog(context, self._status)),
            _in_background(counts),
            _in_background(context.sweeper.run()),
            _in_background(setback.follow(context.clock, context.committer)),
            _in_background(self._listening.keep(server.listen_instead)),
        ]
        if self._unclean:
            background.append(_in_background(self._after_unclean_stop(context)))
        return background

    async def _come_to_rest(self, asked: Ending, context: Context, server: Server) -> None:
        """End what runs, or only what is being asked, before all parts are taken apart."""
        if asked is Ending.STOP:
            # A store that fails meanwhile ends the waiting: nothing that it waits for could be stored any more.
            stopping = asyncio.ensure_future(self._stop(context, server))
            await asyncio.wait({stopping, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                stopping.result()
            else:
                stopping.cancel()
        elif asked is Ending.REEXECUTE:
            failpoints.hit("reexec.asked")
            sdnotify.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=re-executing")
            await server.quiesce(QUIESCE)

    async def _part_with_peers(self, server: Server, watchers: Watchers) -> None:
        """Hand the connections over, or close them. Called when nothing will be committed any more."""
        if self._outcome is Ending.REEXECUTE:
            # Answers of what was committed last are written by now; what is still open is handed over as it was asked.
            await server.quiesce(QUIESCE)
            self._connections = server.hand_over()
        else:
            watchers.wake_all()
            server.close()
            await asyncio.sleep(0)

    def _close_store(self) -> None:
        if self._outcome is not Ending.STORAGE_FAILED:
            self._store.close()

    async def _hold_back_signals(self) -> None:
        """From here on a signal waits for the successor's handlers: by default it would end the process, or be lost."""
        # Blocking holds for this thread only, so it must be the last one.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        for _ in range(3):  # the loop reads what came before this, queues the handler, runs it
            await asyncio.sleep(0)
        if self._skip.is_set():
            os.kill(os.getpid(), signal.SIGTERM)  # a stop that was asked for meanwhile is the successor's to carry out

    async def _after_unclean_stop(self, context: Context) -> None:
        """Beside the work. SQLite survives those, the hardware below it not always."""
        patience = float(os.environ.get(INTEGRITY_VARIABLE, INTEGRITY_PATIENCE))

        def check() -> list[str]:
            return context.maintenance.integrity_check(patience, lambda: context.ending)

        log.info("the last stop was not clean; checking the database")
        try:
            findings = await context.background_work.run(check)
        except GivenUp:
            return
        except (OutOfTime, StorageBusy, StorageUnavailable) as reason:
            log.warning(
                "the database was not checked to its end (%s), so damage may be there; "
                "a copy can be checked: `queuectl backup COPY`, `sqlite3 COPY 'PRAGMA quick_check'`",
                reason,
            )
            return
        except StorageError as error:
            findings = [str(error)]
        if findings:
            self._storage_failed(StorageFailed(f"the database is damaged: {'; '.join(findings)}"))
        else:
            log.info("no damage found in the database")
            self._unclean = False
            # Only now: a damaged database might not know of jobs whose logs are all that is left.
            await context.sweeper.remove_strays()

    async def _stop(self, context: Context, server: Server) -> None:
        # systemd's own patience (TimeoutStopSec=) knows nothing of the settings.
        patience = context.settings.shutdown_timeout + 2 * context.settings.kill_grace + STOP_MARGIN
        sdnotify.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(patience * 1_000_000)}")
        log.info("stopping")
        failpoints.hit("stop.asked")
        context.stopping = True
        self._status.changed()
        await context.supervisor.stop(self._skip)
        context.stopped = True
        context.watchers.wake_all()  # those who still wait are told that the daemon goes
        failpoints.hit("stop.workers")
        await server.quiesce(QUIESCE, answer_waits=True)
        failpoints.hit("stop.answered")
        log.info("stopped")

    # --- signals --------------------------------------------------------------------------------------------------

    def _handle_signals(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload, context)
        # Held back since the start of this program, or since before the exec, if there was one.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)

    def _on_stop(self) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(Ending.STOP)
        else:
            self._skip.set()

    def _on_reload(self, context: Context) -> None:
        if self._ending is None or self._ending.done() or self._checking:
            return
        self._checking = True
        task = asyncio.ensure_future(self._reload(context))
        task.add_done_callback(lambda _task: setattr(self, "_checking", False))

    async def _reload(self, context: Context) -> None:
        """Re-execute, if what is installed now can take over; else go on as before."""
        self._trial = successor.Trial(_own_command(), _as_asked(self._options), os.environ)
        fault = await context.background_work.run(self._trial.fault) or self._held.fault()
        if self._ending is None or self._ending.done():
            return  # asked to stop meanwhile: the check was given up, and found nothing
        if fault:
            log.error("not re-executed: %s", fault)
            context.reload_refusal, context.reloads_refused = fault, context.reloads_refused + 1
        else:
            self._ending.set_result(Ending.REEXECUTE)

    def _storage_failed(self, error: StorageError) -> None:
        log.critical("the storage failed, stopping; running jobs go on: %s", error)
        if not self._broken.done():
            self._broken.set_result(None)
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(Ending.STORAGE_FAILED)

    # --- re-execution ---------------------------------------------------------------------------------------------

    def reexecute(self) -> None:
        """Replace this program by the one that is installed now: same PID, same sockets. Does not return."""
        failpoints.hit("reexec.quiet")
        log.info("re-executing")
        handover.pass_on(
            handover.Handover(
                lock=self._held.lock,
                listener=self._listening.listener.fileno(),
                generation=self._generation + 1,
                started_at=self._started_at,
                descriptors=self._descriptors,
                unclean=self._unclean,
                umask=self._umask,
                socket_identity=self._listening.identity,
                home=str(self._listening.home),
                address=str(self._listening.address),
                connections=self._connections,
                others_too=self._others_too,
                directory=self._held.descriptor,
            ),
            os.environ,
        )
        os.execv(sys.executable, _own_command())  # noqa: S606 - that is the point


HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Blocked from before a re-execution until there are handlers for them."""


def check(options: Options) -> str:
    """See `successor.check`."""
    return successor.check(_as_asked(options), options.socket_group, rehearse_opening, os.environ)


def _as_asked(options: Options) -> successor.Running:
    return successor.Running(str(options.state_dir), str(options.socket or ""), str(options.cgroup or ""))


def _own_command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _running_mark(state_dir: Path) -> Path:
    """A file that is there from the start to a clean stop."""
    return state_dir / "running"


def _in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that nobody waits for, so a fault that ends it is logged at once: the daemon goes on without it."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a fault has ended a part of the daemon, which goes on without it", exc_info=fault)

    task = asyncio.ensure_future(work)
    task.add_done_callback(ended)
    return task


async def _watchdog(context: Context, line: StatusLine) -> None:
    """Tell systemd that this process works: its loop turns, and its committer answers."""
    interval = sdnotify.watchdog_interval(os.environ)
    while interval is not None:
        try:
            await context.committer.submit(lambda _store: None)
        except ProtocolError as refusal:  # a full disk is no reason to be killed
            line.trouble(refusal.message)
        sdnotify.notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _log_ready(about: About, address: Path) -> None:
    log.info(
        "ready",
        extra={
            "version": __version__,
            "pid": about.pid,
            "socket": str(address),
            "state_dir": str(about.state_dir),
        },
    )


__all__ = ["HELD_BACK", "Options", "StartError", "check", "run"]
