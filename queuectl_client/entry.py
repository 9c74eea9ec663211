"""The entry point of the `queuectl` command. Most calls last 40 ms, imports mostly: here is what makes those cheap."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and end the process with its status."""
    # Nothing that an import makes is garbage, so there is nothing to look for while it lasts, nor later among it.
    gc.disable()
    # msgspec takes this along if it happens to be installed, and uses nothing of it on a Python of today.
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    try:
        from queuectl_client import cli  # noqa: PLC0415 - as above

        gc.freeze()
        gc.enable()
        cli.main()
    except KeyboardInterrupt:  # while modules are imported: later, the command line itself sees to it
        status = 130
    except SystemExit as end:
        if "coverage" in sys.modules:  # it writes what it saw when the interpreter ends
            raise
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # who read it is gone, or it is closed; both were told before
            stream.flush()
    # Taking the interpreter apart would take a tenth of the whole time, for nothing.
    os._exit(status)
