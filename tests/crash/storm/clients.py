"""The clients of the storm: they enqueue, look, cancel and retry, over raw sockets, while the daemon comes and goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.storm.jobs import Ledger, Submission, invent
from tests.harness import Daemon, RefusedError, Wire

BACKLOG = 40
"""Jobs that may wait or run before the clients pause: enough that there is always work, and the end is not far."""

PATIENCE = 120.0
"""Seconds that one request may take, however often it is sent again."""

PASSING = {"shutting_down", "busy", "storage_failed"}
"""Refusals that a client answers by asking again: they are about the daemon, not about what was asked."""


class Client(threading.Thread):
    """One client.

    Attributes:
        fault: what the daemon did that it must not, if anything.
    """

    def __init__(self, number: int, daemon: Daemon, ledger: Ledger, random: Random, directory: Path) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.fault: str | None = None
        self._number = number
        self._daemon = daemon
        self._ledger = ledger
        self._random = random
        self._directory = directory
        self._own: list[Submission] = []
        self._wire: Wire | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the request under way, and end."""
        self._stopping.set()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._act()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end as a violation
            self.fault = f"{self.name}: {type(error).__name__}: {error}"
        finally:
            self._hang_up()

    def _act(self) -> None:
        choice = self._random.random()
        if choice < 0.45 or not self._own:
            self._enqueue()
        elif choice < 0.6:
            self._cancel()
        elif choice < 0.72:
            self._retry()
        elif choice < 0.74:
            self._shake_pool()
        else:
            self._look()

    # --- what it does -----------------------------------------------------------------------------------------------

    def _enqueue(self) -> None:
        while sum(self._ask("status.get")["counts"][state] for state in ("pending", "failed", "processing")) >= BACKLOG:
            if self._stopping.wait(0.05):
                return
        count = self._random.choice([1, 1, 1, 2, 5])
        batch = [invent(f"c{self._number}-{len(self._own) + i}", self._random, self._directory) for i in range(count)]
        # Known before they are sent: a job may run before its reply is here.
        self._ledger.submissions.update({one.id: one for one in batch})
        self._own += batch
        ids = self._ask("job.enqueue", jobs=[one.spec for one in batch])["ids"]
        self._ledger.acknowledge(batch)
        assert ids == [one.id for one in batch], f"enqueue answered with {ids}"

    def _cancel(self) -> None:
        one = self._random.choice(self._own[-20:])
        one.cancels_sent += 1
        with self._expecting("invalid_state"):
            self._ask("job.cancel", ids=[one.id])
            one.cancelled = True

    def _retry(self) -> None:
        one = self._random.choice(self._own)
        method = self._random.choice(["job.retry", "dlq.retry"])
        # Counted and forgotten before it is sent: with a lost reply nobody knows whether it was done.
        one.retries_sent += 1
        cancelled, one.cancelled = one.cancelled, False
        try:
            answered = self._ask_once(method, ids=[one.id])
        except RefusedError as refusal:
            if refusal.kind not in {"invalid_state", *PASSING}:
                raise
            if refusal.kind != "storage_failed":
                one.retries_sent -= 1
                one.cancelled = cancelled
        else:
            if answered is None:
                self._ledger.lost_replies += 1

    def _shake_pool(self) -> None:
        """Take a worker out of the pool, and put another in."""
        workers = self._ask("worker.list")["workers"]
        if not workers:
            return
        one = self._random.choice(workers)["id"]
        with self._expecting("not_found"):
            self._ask("worker.stop", ids=[one], now=self._random.random() < 0.5)
        while self._ask("worker.list")["desired"] < len(workers):
            with contextlib.suppress(RefusedError):
                self._ask_once("worker.start", count=1)

    def _look(self) -> None:
        one = self._random.choice(self._own)
        questions: list[tuple[str, dict[str, Any]]] = [
            ("status.get", {}),
            ("job.get", {"id": one.id}),
            ("job.list", {"limit": 20}),
            ("dlq.list", {"limit": 20}),
            ("job.logs", {"id": one.id}),
            ("job.wait", {"ids": [one.id], "timeout": 0.3}),
        ]
        method, params = self._random.choice(questions)
        self._ask(method, **params)

    @staticmethod
    @contextlib.contextmanager
    def _expecting(kind: str) -> Iterator[None]:
        try:
            yield
        except RefusedError as refusal:
            if refusal.kind != kind:
                raise

    # --- how it asks ------------------------------------------------------------------------------------------------

    def _ask(self, method: str, **params: Any) -> Any:
        """The answer, however often the question has to be sent; with the same ids, so that it does no harm.

        Raises:
            RefusedError: the daemon said no to the question itself.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                answer = self._ask_once(method, **params)
            except RefusedError as refusal:
                if refusal.kind not in PASSING:
                    raise
                self._hang_up()
            else:
                if answer is not None:
                    return answer
            time.sleep(self._random.uniform(0.005, 0.05))
        raise TimeoutError(f"no answer to {method} for {PATIENCE:g} s")

    def _ask_once(self, method: str, **params: Any) -> Any | None:
        """The answer, or None if the connection was lost, or could not be made.

        Raises:
            RefusedError: the daemon said no.
        """
        try:
            if self._wire is None:
                self._wire = self._daemon.wire()
                self._wire.connection.settimeout(15)  # a stopped daemon: asked again by another connection
            return self._wire.call(method, **params)
        except OSError:
            if self._wire is not None:
                self._ledger.lost_replies += 1
            self._hang_up()
            return None

    def _hang_up(self) -> None:
        if self._wire is not None:
            with self._wire:
                self._wire = None
