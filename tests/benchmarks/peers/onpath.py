"""pueue and HyperQueue: no Debian package and none on PyPI, so only where they are installed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.ours import Gate
from tests.benchmarks.peers.base import SLOTS, first_line, numbers, run, started, until


class Pueue:
    """A daemon that saves its whole state at each change."""

    name = "pueue"
    does_not = "an acknowledged job is not on disk yet; no retries; each change costs as much as there are jobs"

    def version(self) -> str:
        return first_line("pueue", "--version")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        lines = numbers(directory / "lines", jobs)
        with self._daemon(directory) as client:
            run([*client, "pause"], limit=limit)
            run(["xargs", "-n1", *client, "add", "--", "true"], stdin=lines, limit=limit)
            begin = time.perf_counter()
            run([*client, "start"], limit=limit)
            run([*client, "wait", "--quiet"], limit=limit)
            return time.perf_counter() - begin

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        lines = numbers(directory / "lines", jobs)
        with self._daemon(directory) as client:
            begin = time.perf_counter()
            run(["xargs", "-n1", *client, "add", "--", "true"], stdin=lines, limit=limit)
            run([*client, "wait", "--quiet"], limit=limit)
            return time.perf_counter() - begin

    @contextlib.contextmanager
    def _daemon(self, directory: Path) -> Iterator[list[str]]:
        place = str(directory)
        config = directory / "pueue.yml"  # JSON is YAML
        shared = {
            "pueue_directory": place, "runtime_directory": place, "use_unix_socket": True,
            "unix_socket_path": f"{place}/socket", "host": "127.0.0.1", "port": "6924",
            "daemon_cert": f"{place}/cert", "daemon_key": f"{place}/key", "shared_secret_path": f"{place}/secret",
        }  # fmt: skip
        config.write_text(json.dumps({"shared": shared, "client": {}, "daemon": {}}))
        client = ["pueue", "--config", str(config)]
        with started(["pueued", "--config", config]):
            until(lambda: _succeeds([*client, "parallel", str(SLOTS)]), time.perf_counter() + 10)
            yield client


class HyperQueue:
    """A server and workers for clusters; here both on one machine."""

    name = "HyperQueue"
    does_not = "no journal unless asked for, and then flushed every 30 s; no retries with backoff, no dead letter queue"

    def version(self) -> str:
        return first_line("hq", "--version")

    def drain(self, directory: Path, jobs: int, limit: float) -> float | None:
        gate = Gate(directory / "gate")
        gate.close()
        with self._server(directory) as client:
            run([*client, "submit", f"--array=1-{SLOTS}", "--", *gate.argv()], limit=limit)
            run([*client, "submit", f"--array=1-{jobs}", "--", "sh", "-c", "true"], limit=limit, cwd=directory)
            begin = time.perf_counter()
            gate.open()
            run([*client, "job", "wait", "all"], limit=limit)
            return time.perf_counter() - begin

    def through(self, directory: Path, jobs: int, limit: float) -> float:
        with self._server(directory) as client:
            begin = time.perf_counter()
            run(
                [*client, "submit", "--wait", f"--array=1-{jobs}", "--", "sh", "-c", "true"], limit=limit, cwd=directory
            )
            return time.perf_counter() - begin

    @contextlib.contextmanager
    def _server(self, directory: Path) -> Iterator[list[str]]:
        client = ["hq", "--server-dir", str(directory / "server")]
        with started([*client, "server", "start"], cwd=directory):
            until(lambda: _succeeds([*client, "server", "info"]), time.perf_counter() + 10)
            with started([*client, "worker", "start", f"--cpus={SLOTS}"], cwd=directory):
                yield client


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False, timeout=20).returncode == 0
