"""Where state and sockets live: one rule for the daemon and the client.

Both follow systemd's $STATE_DIRECTORY and $RUNTIME_DIRECTORY where they are set, else platformdirs' user directories.
Paths are text here: a client that only enqueues would pay a fifth of its time for pathlib.
"""

from __future__ import annotations

import os
import stat

from queuectl_protocol import trust

TYPE_CHECKING = False  # as in trust.py
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_SOCKET = "/run/queuectl/queuectl.sock"
MAX_SOCKET_PATH = 107
"""Bytes that fit into a `struct sockaddr_un` with their NUL; unix(7)."""

ADDRESS_FILE = "address"
"""In the state directory: where its running daemon listens, an absolute path and a newline."""


def spelled(path: str) -> str:
    """`path` as pathlib writes it: `./a//b/` is `a/b`."""
    root = "" if not path.startswith("/") else "//" if path.startswith("//") and not path.startswith("///") else "/"
    return root + "/".join(name for name in path.split("/") if name not in {"", "."}) or "."


def parse_address(content: bytes) -> str | None:
    """The path that an address file holds; None where it is not one whole absolute path."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    whole = text.startswith("/") and text.find("\n") == len(text) - 1 and "\0" not in text
    return spelled(text[:-1]) if whole else None


def state_dir(environ: Mapping[str, str]) -> str:
    """Where the daemon keeps its database and logs, if nobody says otherwise."""
    if given := environ.get("QUEUECTL_STATE_DIR"):
        return spelled(given)
    if given := environ.get("STATE_DIRECTORY"):
        return spelled(given.split(":")[0])
    import platformdirs  # noqa: PLC0415 - 9 ms that a client with --socket need not pay

    return spelled(platformdirs.user_state_dir("queuectl"))


def user_socket(environ: Mapping[str, str]) -> str:
    """The socket of the user's own daemon."""
    base = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    if _is_runtime_dir(base):
        return f"{base}/queuectl/queuectl.sock"
    import warnings  # noqa: PLC0415 - as above

    import platformdirs  # noqa: PLC0415 - as above

    with warnings.catch_warnings():
        # Without $XDG_RUNTIME_DIR it falls back to a directory under /tmp, and warns: not in the middle of our output.
        warnings.simplefilter("ignore")
        return spelled(f"{platformdirs.user_runtime_dir('queuectl')}/queuectl.sock")


def _is_runtime_dir(base: str) -> bool:
    """Whether platformdirs takes `base` too, beyond doubt: it need not be asked then.

    The directory is absolute and private to this user, and nobody else can put another one in its place.
    """
    user = os.geteuid()
    if not base.startswith("/") or spelled(base) != base or "/.." in base:
        return False
    try:
        status = os.lstat(base)
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == user and stat.S_IMODE(status.st_mode) == 0o700
        return private and trust.replaceable(os.path.dirname(base), {0, user}, -1, os.lstat, os.readlink) is None
    except OSError:
        return False


def daemon_socket(environ: Mapping[str, str]) -> str:
    """Where the daemon listens, if neither a flag nor systemd's socket says otherwise."""
    if given := environ.get("QUEUECTL_SOCKET"):
        return spelled(given)
    if given := environ.get("RUNTIME_DIRECTORY"):
        return spelled(f"{given.split(':')[0]}/queuectl.sock")
    return user_socket(environ)


def client_sockets(environ: Mapping[str, str]) -> list[str]:
    """Where a client looks for a daemon, in this order."""
    if given := environ.get("QUEUECTL_SOCKET"):
        return [spelled(given)]
    return [user_socket(environ), SYSTEM_SOCKET]


def config_file(environ: Mapping[str, str]) -> str:
    """The daemon's config file, if --config names no other: systemd's directory for it, else the user's."""
    if given := environ.get("CONFIGURATION_DIRECTORY"):
        return spelled(f"{given.split(':')[0]}/queuectld.toml")
    import platformdirs  # noqa: PLC0415 - as above

    return spelled(f"{platformdirs.user_config_dir('queuectl')}/queuectld.toml")
