"""What the figures were measured on. Nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path


def describe(directory: Path) -> dict[str, str]:
    """What matters for the figures, for people, with `directory` the one that is worked in."""
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "CPU": f"{len(os.sched_getaffinity(0))} x {_cpu()}",
        "memory": f"{int(memory[1]) * 1024 / 2**30:.0f} GiB" if memory else "unknown",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "file system": _file_system(directory),
        "distribution": _distribution(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "queuectl": metadata.version("queuectld"),
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _file_system(directory: Path) -> str:
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", directory], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"
