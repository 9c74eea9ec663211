"""The killer of the storm: SIGKILL, SIGSTOP, SIGHUP and SIGTERM to the daemon and its workers, at bad moments."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.crash.storm.jobs import Ledger
from tests.harness import Daemon, wait_for

STALL = 60.0
"""Seconds without a line in the journal, although there is always work, after which the queue counts as stuck."""

MARKER = b"QUEUECTL_LEASE="


class Process(NamedTuple):
    pid: int
    worker: str
    """The worker's id; "" of a job's process."""


class Killer:
    """Sends signals until `kills` SIGKILLs were sent to the daemon and workers.

    Attributes:
        done: what was done how often.
        signals: which were sent to whom how often.
        disturbed: ids of workers that got a signal; all others must tell the outcome of whatever they ran.
        longest_stall: the longest time without progress, seconds.
    """

    def __init__(self, daemon: Daemon, ledger: Ledger, seed: str, directory: Path) -> None:
        self.done: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.disturbed: set[str] = set()
        self.longest_stall = 0.0
        self._daemon = daemon
        self._ledger = ledger
        # Two, so that what is done in which order does not depend on how many there are to choose from at the moment.
        self._plan = Random(f"{seed}/plan")
        self._random = Random(f"{seed}/details")
        self._directory = directory
        self._journal = directory / "journal"
        self._log = (directory / "killer.log").open("w", buffering=1)
        self._stopped: list[tuple[float, int]] = []
        self._startup = 0.5

    @property
    def kills(self) -> int:
        """SIGKILLs to the daemon and to workers."""
        return self.signals["SIGKILL daemon"] + self.signals["SIGKILL worker"]

    def rage(self, kills: int) -> None:
        """Until there were that many kills; afterwards the daemon is up and nobody is stopped any more.

        Raises:
            AssertionError: the daemon ended by itself, or did not come up, or nothing went on any more.
        """
        actions: dict[Callable[[], None], int] = {
            self.kill_daemon: 20,
            self.kill_daemon_after_reply: 12,
            self.kill_daemon_at_start: 6,
            self.kill_worker: 12,
            self.kill_all_workers: 3,
            self.kill_daemon_and_worker: 10,
            self.kill_everything: 4,
            self.kill_job: 4,
            self.stop_worker: 5,
            self.stop_daemon: 4,
            self.stop_daemon_kill_workers: 3,
            self.stop_worker_kill_daemon: 4,
            self.reload: 3,
            self.reload_and_kill_daemon: 5,
            self.reload_and_kill_worker: 4,
            self.terminate: 3,
            self.terminate_and_kill_worker: 3,
            self.terminate_and_kill_daemon: 4,
            self.terminate_worker: 2,
        }
        wait_for(self.workers, "workers: has their command line another form now?")
        while self.kills < kills:
            self._wait_progress()
            self._pause(self._random.choice([0.0, 0.005, 0.02, 0.06]))
            action = self._plan.choices([*actions], [*actions.values()])[0]
            self._say(action.__name__)
            self.done[action.__name__] += 1
            action()
            self._resume_due()
        self._resume_all()

    def close(self) -> None:
        self._log.close()

    # --- what it does -----------------------------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        self._kill_daemon()
        if self._random.random() < 0.3:
            self._pause(self._random.uniform(0, 1.5))  # jobs end while no daemon runs
        self.start_daemon()

    def kill_daemon_after_reply(self) -> None:
        self._ledger.wait_reply(2.0)
        self._kill_daemon()
        self.start_daemon()

    def kill_daemon_at_start(self) -> None:
        self._kill_daemon()
        for _ in range(self._random.randint(1, 3)):
            self._daemon.spawn()
            self._pause(self._random.uniform(0, 1.3 * self._startup))
            self._kill_daemon()
        self.start_daemon()

    def kill_worker(self) -> None:
        self._signal_one(self.workers(), signal.SIGKILL)

    def kill_all_workers(self) -> None:
        for one in self.workers():
            self._signal(one, signal.SIGKILL)

    def kill_daemon_and_worker(self) -> None:
        if self._random.random() < 0.5:
            self._signal_one(self.workers(), signal.SIGKILL)
            self._kill_daemon()
        else:
            self._kill_daemon()
            self._signal_one(self.workers(), signal.SIGKILL)
        self.start_daemon()

    def kill_everything(self) -> None:
        self._kill_daemon()
        self.kill_all_workers()
        self.start_daemon()

    def kill_job(self) -> None:
        self._signal_one(self.job_processes(), signal.SIGKILL)

    def stop_worker(self) -> None:
        self._signal_one(self.workers(), signal.SIGSTOP)

    def stop_daemon(self) -> None:
        self._signal_daemon(signal.SIGSTOP)
        self._pause(self._random.choice([0.1, 0.5, 4.0]))
        self._signal_daemon(signal.SIGCONT)

    def stop_daemon_kill_workers(self) -> None:
        self._signal_daemon(signal.SIGSTOP)
        self._signal_one(self.workers(), signal.SIGKILL)
        self._pause(self._random.choice([0.0, 0.2, 0.6]))
        self._signal_daemon(signal.SIGCONT)

    def stop_worker_kill_daemon(self) -> None:
        self._signal_one(self.workers(), signal.SIGSTOP)
        self._kill_daemon()
        self.start_daemon()

    def reload(self) -> None:
        self._signal_daemon(signal.SIGHUP)

    def reload_and_kill_daemon(self) -> None:
        self._signal_daemon(signal.SIGHUP)
        self._pause(self._random.uniform(0, 2.5 * self._startup))
        self._kill_daemon()
        self.start_daemon()

    def reload_and_kill_worker(self) -> None:
        self._signal_daemon(signal.SIGHUP)
        self._pause(self._random.uniform(0, 2.5 * self._startup))
        self._signal_one(self.workers(), signal.SIGKILL)

    def terminate(self) -> None:
        self._signal_daemon(signal.SIGTERM)
        if self._random.random() < 0.3:
            self._signal_daemon(signal.SIGTERM)
        self._wait_stopped()
        self.start_daemon()

    def terminate_and_kill_worker(self) -> None:
        self._signal_daemon(signal.SIGTERM)
        self._pause(self._random.uniform(0, 1.5))
        self._signal_one(self.workers(), signal.SIGKILL)
        self._wait_stopped()
        self.start_daemon()

    def terminate_and_kill_daemon(self) -> None:
        self._signal_daemon(signal.SIGTERM)
        self._pause(self._random.uniform(0, 1.5))
        self._kill_daemon()
        self.start_daemon()

    def terminate_worker(self) -> None:
        self._signal_one(self.workers(), signal.SIGTERM)

    # --- the daemon -------------------------------------------------------------------------------------------------

    def start_daemon(self) -> None:
        """Start it and wait until it answers.

        Raises:
            AssertionError: it does not.
        """
        begin = time.monotonic()
        self._daemon.start()
        took = time.monotonic() - begin
        self._startup = 0.7 * self._startup + 0.3 * took
        self.done["start"] += 1
        self._say(f"daemon {self._daemon.pid} answers after {took:.2f} s")

    def stop_cleanly(self) -> int:
        """The exit status of the daemon after SIGTERM."""
        self._signal_daemon(signal.SIGTERM)
        assert self._daemon.process is not None
        return self._daemon.process.wait(STALL)

    def _wait_stopped(self) -> None:
        self._resume_all()  # who is stopped can't stop; the daemon would wait for its full patience
        assert self._daemon.process is not None
        status = self._daemon.process.wait(STALL)
        assert status == 0, f"the daemon stopped with status {status}"

    def _kill_daemon(self) -> None:
        process = self._daemon.process
        assert process is not None
        status = process.poll()
        assert status in (None, 0), f"the daemon had ended with status {status}"  # 0: it was asked to stop
        self._signal_daemon(signal.SIGKILL)
        process.wait(STALL)

    def _signal_daemon(self, number: signal.Signals) -> None:
        assert self._daemon.process is not None
        self._say(f"{number.name} daemon {self._daemon.pid}")
        if self._daemon.process.poll() is None:
            self.signals[f"{number.name} daemon"] += 1
            self._daemon.process.send_signal(number)

    # --- workers and jobs -------------------------------------------------------------------------------------------

    def workers(self) -> list[Process]:
        """All worker processes of this storm, known to the daemon or not."""
        found = []
        for pid, words in _command_lines():
            if b"queuectld.worker" in words[:8]:
                # ... -m queuectld.worker ID SOCKET STATE_DIR ...
                worker, _socket, state_dir = words[words.index(b"queuectld.worker") + 1 :][:3]
                if state_dir == os.fsencode(self._daemon.state_dir):
                    found.append(Process(pid, worker.decode()))
        return found

    def job_processes(self) -> list[Process]:
        """All processes that belong to attempts of this storm."""
        mine = b"STORM=" + os.fsencode(self._directory) + b"\0"
        found = []
        for entry in _processes():
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if mine in environment and MARKER in environment:
                    found.append(Process(int(entry.name), ""))
        return found

    def _signal_one(self, processes: list[Process], number: signal.Signals) -> None:
        if processes:
            self._signal(self._random.choice(processes), number)

    def _signal(self, one: Process, number: signal.Signals) -> None:
        who = "worker" if one.worker else "job"
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(one.pid)
            # Looked at again now that it can't be another process of the same pid.
            if one not in (self.workers() if one.worker else self.job_processes()):
                os.close(descriptor)
                return
            if one.worker:
                self.disturbed.add(one.worker)
            self._say(f"{number.name} {who} {one.pid} {one.worker}")
            signal.pidfd_send_signal(descriptor, number)
            self.signals[f"{number.name} {who}"] += 1
            if number == signal.SIGSTOP:
                # For a shorter time than a worker may be silent, or for a longer one.
                length = self._random.choice([0.1, 0.5, 1.5, 5.0])
                self._stopped.append((time.monotonic() + length, descriptor))
            else:
                os.close(descriptor)

    def _resume_due(self) -> None:
        now = time.monotonic()
        for when, descriptor in self._stopped:
            if when <= now:
                self._resume(descriptor)
        self._stopped = [(when, descriptor) for when, descriptor in self._stopped if when > now]

    def _resume_all(self) -> None:
        self._stopped = [(0.0, descriptor) for _, descriptor in self._stopped]
        self._resume_due()

    @staticmethod
    def _resume(descriptor: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        os.close(descriptor)

    # --- time -------------------------------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        """Choose a moment: the one place where time passes by the clock, because any moment will do."""
        time.sleep(seconds)

    def _wait_progress(self) -> None:
        """Wait until something was written into the journal since the call."""
        begin, size = time.monotonic(), self._journal.stat().st_size

        def went_on() -> bool:
            self._resume_due()
            assert self._daemon.process is not None
            status = self._daemon.process.poll()
            assert status is None, f"the daemon ended by itself with status {status}"
            return self._journal.stat().st_size > size

        wait_for(went_on, "the next line of the journal, although there is work", STALL)
        self.longest_stall = max(self.longest_stall, time.monotonic() - begin)

    def _say(self, text: str) -> None:
        uptime = Path("/proc/uptime").read_text().split()[0]
        self._log.write(f"{uptime} {text}\n")


def _command_lines() -> Iterator[tuple[int, list[bytes]]]:
    for entry in _processes():
        with contextlib.suppress(OSError):
            yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
