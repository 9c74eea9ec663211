"""Gets the peers: Debian's by apt-get where that is allowed, Python's into .venv-bench, the others where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.benchmarks.figures import say
from tests.benchmarks.peers.base import Peer
from tests.benchmarks.peers.debian import Nq, Parallel, TaskSpooler
from tests.benchmarks.peers.onpath import HyperQueue, Pueue
from tests.benchmarks.peers.python import Huey, PypiQueuectl
from tests.harness import ROOT

VENV = ROOT / ".venv-bench"


class UnavailableError(Exception):
    """A peer can't be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a peer comes from.

    Attributes:
        make: the peer.
        commands: what has to be on PATH (of Debian's and of the others).
        debian: its package, if Debian has it.
        pypi: its package, if it is a Python one.
    """

    make: Callable[[], Peer]
    commands: tuple[str, ...] = ()
    debian: str | None = None
    pypi: str | None = None


SOURCES: dict[str, Source] = {
    "parallel": Source(Parallel, ("parallel",), debian="parallel"),
    "tsp": Source(TaskSpooler, ("tsp",), debian="task-spooler"),
    "nq": Source(Nq, ("nq",), debian="nq"),
    "huey": Source(lambda: Huey(VENV), pypi="huey"),
    "queuectl": Source(lambda: PypiQueuectl(VENV), pypi="queuectl"),
    "pueue": Source(Pueue, ("pueue", "pueued")),
    "hq": Source(HyperQueue, ("hq",)),
}
"""By the word that `BENCH_PEERS=` takes."""


def get(names: Iterable[str]) -> tuple[list[tuple[Peer, str]], dict[str, str]]:
    """Install what is missing and can be installed.

    Returns:
        The peers with their versions; by name, why others are left out.
    """
    found: list[tuple[Peer, str]] = []
    left_out: dict[str, str] = {}
    for name in names:
        peer = SOURCES[name].make()
        try:
            _provide(SOURCES[name])
            found.append((peer, peer.version()))
        except UnavailableError as why:
            left_out[peer.name] = str(why)
        except (OSError, subprocess.SubprocessError) as error:
            left_out[peer.name] = f"it does not run here: {error}"
    for name, reason in left_out.items():
        say(f"{name} is left out: {reason}")
    return found, left_out


def _provide(source: Source) -> None:
    if source.pypi is not None:
        _install_python(source.pypi)
        return
    if all(shutil.which(command) for command in source.commands):
        return
    if source.debian is None:
        raise UnavailableError("not found on PATH, and packaged neither by Debian nor on PyPI")
    _install_debian(source.debian)


def _install_debian(package: str) -> None:
    if shutil.which("apt-get") is None:
        raise UnavailableError("not found on PATH, and there is no apt-get")
    if os.geteuid() == 0:
        as_root = ["env"]
    elif (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        as_root = ["sudo", "-n", "env"]
    else:
        raise UnavailableError(f"not installed, and only root may install it (apt-get install {package})")
    say(f"(installing {package})")
    apt_get = [*as_root, "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    install = [*apt_get, "install", "--yes", "--no-install-recommends", package]
    if subprocess.run(install, capture_output=True, check=False).returncode == 0:
        return
    # A machine whose lists are old, or not there yet.
    subprocess.run([*apt_get, "update"], capture_output=True, check=False)
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"apt-get could not install it: {_last_line(done.stderr)}")


def _install_python(package: str) -> None:
    python = VENV / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(VENV)])
    installed = subprocess.run([python, "-m", "pip", "show", "-q", package], capture_output=True, check=False)
    if installed.returncode != 0:
        say(f"(installing {package} into {VENV.name})")
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"pip could not install it: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no reason given"
