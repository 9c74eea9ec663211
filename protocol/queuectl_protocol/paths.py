"""Where state and sockets live: one rule for the daemon and the client.

Both follow systemd's $STATE_DIRECTORY and $RUNTIME_DIRECTORY where they are set, else platformdirs' user directories.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/queuectl/queuectl.sock")
MAX_SOCKET_PATH = 107
"""Bytes that fit into a `struct sockaddr_un` with their NUL; unix(7)."""

ADDRESS_FILE = "address"
"""In the state directory: where its running daemon listens, an absolute path and a newline."""


def parse_address(content: bytes) -> Path | None:
    """The path that an address file holds; None where it is not one whole absolute path."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    whole = text.startswith("/") and text.find("\n") == len(text) - 1 and "\0" not in text
    return Path(text[:-1]) if whole else None


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where the daemon keeps its database and logs, if nobody says otherwise."""
    if given := environ.get("QUEUECTL_STATE_DIR"):
        return Path(given)
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    import platformdirs  # noqa: PLC0415 - 9 ms that a client with --socket need not pay

    return Path(platformdirs.user_state_dir("queuectl"))


def user_socket() -> Path:
    """The socket of the user's own daemon."""
    import platformdirs  # noqa: PLC0415 - as above

    with warnings.catch_warnings():
        # Without $XDG_RUNTIME_DIR it falls back to a directory under /tmp, and warns: not in the middle of our output.
        warnings.simplefilter("ignore")
        return Path(platformdirs.user_runtime_dir("queuectl")) / "queuectl.sock"


def daemon_socket(environ: Mapping[str, str]) -> Path:
    """Where the daemon listens, if neither a flag nor systemd's socket says otherwise."""
    if given := environ.get("QUEUECTL_SOCKET"):
        return Path(given)
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0]) / "queuectl.sock"
    return user_socket()


def client_sockets(environ: Mapping[str, str]) -> list[Path]:
    """Where a client looks for a daemon, in this order."""
    if given := environ.get("QUEUECTL_SOCKET"):
        return [Path(given)]
    return [user_socket(), SYSTEM_SOCKET]


def config_file(environ: Mapping[str, str]) -> Path:
    """The daemon's config file, if --config names no other: systemd's directory for it, else the user's."""
    if given := environ.get("CONFIGURATION_DIRECTORY"):
        return Path(given.split(":")[0]) / "queuectld.toml"
    import platformdirs  # noqa: PLC0415 - as above

    return Path(platformdirs.user_config_dir("queuectl")) / "queuectld.toml"
