"""What daemon and worker do first of all, before they open, spawn or start anything.

Whoever started them may have left any descriptor closed and any signal blocked.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection


def open_standard_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed, on /dev/null.

    Else the next file to be opened becomes one of them: a lock for example, which a child is not given then, since
    these three are replaced in every child.
    """
    for number in range(3):  # upwards: open(2) takes the lowest number that is free
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as above


def unblock_signals(but: Collection[signal.Signals] = ()) -> None:
    """Have no signal blocked except, if they are, those in `but`. Threads that are started later do the same."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals() - set(but))
