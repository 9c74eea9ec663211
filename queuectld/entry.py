"""The entry point of the `queuectld` command."""

from __future__ import annotations

from typing import NoReturn

from queuectld import start


def main() -> NoReturn:
    """Run the daemon's command line in this process."""
    # Before the imports, since some of them open files for good: ctypes opens libffi.
    start.open_standard_descriptors()
    from queuectld import cli  # noqa: PLC0415 - as above

    cli.main()
