"""What systemd and a service tell each other: readiness, watchdog, sockets.

The other side of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
Without systemd everything here does nothing, so the daemon need not know who started it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

FIRST_FD = 3
"""SD_LISTEN_FDS_START: the descriptors that systemd passes begin after standard error."""

VARIABLES = frozenset(
    {
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "DEBUG_INVOCATION",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "LOG_NAMESPACE",
        "LOGS_DIRECTORY",
        "MAINPID",
        "MANAGERPID",
        "MANAGERPIDFDID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "NOTIFY_SOCKET",
        "QUEUECTLD_DELEGATED",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
"""What systemd and our units say to one service alone; systemd.exec(5). A process that inherits it would take it
for its own."""


def notify(*assignments: str) -> bool:
    """Send `assignments` ("READY=1", "STATUS=3 jobs running" ...) to systemd as one message.

    Returns:
        Whether systemd took it. False also where nobody asked for it. Never waits, never raises: what must arrive
        (READY=1) is sent again by the caller.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):  # unset, or of a kind (vsock) that a service on this machine is not given
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.connect(address)
            sender.sendall("\n".join(assignments).encode())
    except OSError:
        return False
    return True


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds after which to send WATCHDOG=1 again: half of what systemd allows. None: no watchdog for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1_000_000 / 2


def listen_fds(environ: MutableMapping[str, str]) -> list[int]:
    """The sockets passed by systemd, from now on closed in programs that this process starts.

    The variables are removed, so that nobody else takes the descriptors for its own, and a second call answers [].
    """
    ours = environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    environ.pop("LISTEN_PIDFDID", None)
    if not ours or not count.isdecimal():
        return []
    fds = list(range(FIRST_FD, FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what systemd says to this service alone: what a job may inherit."""
    return {name: value for name, value in environ.items() if name not in VARIABLES}
