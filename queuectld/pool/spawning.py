"""Worker processes as children of this process: starting them, and knowing them from other children."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import queuectl_protocol
import queuectld
from queuectld.pool.places import Places
from queuectld.process_tree import proc


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker process that was started just now.

    Attributes:
        worker: its id.
        pid: of the process.
        start_ticks: when it started, as in /proc/PID/stat.
        pidfd: a descriptor of the process, the caller's to close.
    """

    worker: str
    pid: int
    start_ticks: int
    pidfd: int


class Spawning:
    """Starts workers, and tells them from the orphans that come to this process as a subreaper.

    Args:
        socket: where workers connect, asked for each time; they look into the state directory too.
        places: where their files are.
        environment: of the workers.
        descriptors: the soft limit of open files that workers and so jobs get; the daemon's own is raised.
        umask: that workers and so jobs get; the daemon's own lets nobody else read.
        mark: of the queue; a worker takes orders from a daemon of its own queue only.
    """

    def __init__(
        self,
        socket: Callable[[], Path],
        places: Places,
        environment: Mapping[str, str],
        descriptors: int,
        umask: int,
        mark: str,
    ) -> None:
        self._socket = socket
        self._places = places
        # A checkout that is not installed works too.
        self._environment = {**environment, "PYTHONPATH": _import_path()}
        self._descriptors = descriptors
        self._umask = umask
        self._mark = mark
        # Held while children come and go, so that a look for orphans takes no new worker for one, and misses none.
        self._children = threading.Lock()
        self._worker_pids: set[int] = set()

    def spawn(self, taken: Collection[str]) -> Spawned:
        """Start a worker whose id is none of `taken`.

        Raises:
            OSError: it can't be started. Nothing of it is left.
        """
        worker = _new_id()
        while worker in taken:
            worker = _new_id()
        places = self._places
        arguments = [worker, str(self._socket()), str(places.state_dir), str(places.groups or ""), self._mark]
        # UTF-8 whatever the locale is: commands and paths come as JSON, and a letter must not end the worker.
        command = [sys.executable, "-X", "utf8", "-P", "-m", "queuectld.worker", *arguments]
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
        child.returncode = 0  # reaped by `reap`, with all other children
        pidfd, ticks = self._take_charge_of(child.pid)
        return Spawned(worker, child.pid, ticks, pidfd)

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

    def adopt(self, pid: int) -> None:
        """A process that an earlier daemon has started is a worker."""
        self._worker_pids.add(pid)

    def forget(self, pid: int) -> None:
        """A worker is gone, and its PID may be another process's."""
        self._worker_pids.discard(pid)

    def is_worker(self, pid: int) -> bool:
        return pid in self._worker_pids

    def other_children(self) -> list[int]:
        """Children of this process, dead or alive, that are no workers. Called in threads of their own."""
        with self._children:
            return [pid for pid in proc.children(os.getpid()) if pid not in self._worker_pids]

    def reap(self) -> None:
        """Collect every dead child: workers, and orphans of dead workers, which come to this process as a subreaper."""
        with self._children, contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _new_id() -> str:
    return f"w{secrets.token_hex(3)}"


def _import_path() -> str:
    """PYTHONPATH with which a worker finds this code, also in a checkout, where the protocol has its own folder."""
    homes = (Path(queuectld.__file__).parent.parent, Path(queuectl_protocol.__file__).parent.parent)
    return os.pathsep.join(dict.fromkeys(map(str, homes)))
