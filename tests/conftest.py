"""Fixtures for every test that needs a real daemon."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness import Daemon, running_daemon
from tests.reachable import python_and_path

# A shell starts what is to run in the background with SIGINT ignored, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy for a moment is no fault of what is tested.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A temporary directory with a short path: a Unix socket's has room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="qctl-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def make_daemon(directory: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are not started yet, each in a directory of its own."""
    made: list[Daemon] = []

    def make(*arguments: str) -> Daemon:
        home = directory / f"d{len(made)}"
        home.mkdir()
        made.append(Daemon(home, *arguments))
        return made[-1]

    yield make
    for daemon in made:
        daemon.clean_up()


@pytest.fixture(scope="session")
def reachable() -> Iterator[Callable[[Daemon], Daemon]]:
    """Makes a daemon run from files that every user can read, which this checkout's need not be."""
    with python_and_path() as found:

        def prepared(daemon: Daemon) -> Daemon:
            if found is None:
                pytest.skip("there is no Python of this version that every user may run")
            daemon.python, daemon.environment["PYTHONPATH"] = found
            return daemon

        yield prepared


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    """A running daemon without workers: what is enqueued stays pending."""
    with running_daemon(directory) as running:
        yield running


@pytest.fixture
def pool(directory: Path) -> Iterator[Daemon]:
    """A running daemon with two workers, that retries at once and does not wait long for anything."""
    quick = {"backoff_base": 0, "kill_grace": 1, "shutdown_timeout": 5}
    with running_daemon(directory, "--workers", "2", settings=quick) as running:
        running.wait_workers(2)
        yield running


@pytest.fixture
def single(directory: Path) -> Iterator[Daemon]:
    """As `pool`, with one worker: what runs when is decided by the order of the queue alone."""
    quick = {"backoff_base": 0, "kill_grace": 1, "shutdown_timeout": 5}
    with running_daemon(directory, "--workers", "1", settings=quick) as running:
        running.wait_workers(1)
        yield running
