"""The entry point of the `queuectl` command. Most calls last 20 ms, imports mostly: here is what makes those cheap."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and end the process with its status."""
    # Nothing that an import makes is garbage, so there is nothing to look for while it lasts, nor later among it.
    gc.disable()
    try:
        status = _run()
    except KeyboardInterrupt:  # while modules are imported: later, the command line itself sees to it
        status = 130
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    if "coverage" in sys.modules:  # it writes what it saw when the interpreter ends
        raise SystemExit(status)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # who read it is gone, or it is closed; both were told before
            continue
    # Taking the interpreter apart would take a tenth of the whole time, for nothing.
    os._exit(status)


def _run() -> int:
    from queuectl_client.direct.parse import parse  # noqa: PLC0415 - as above

    failure = None
    call = None if "_QUEUECTL_COMPLETE" in os.environ else parse(sys.argv[1:])
    if call is not None:
        from queuectl_client.direct.run import run  # noqa: PLC0415 - as above

        try:
            status = run(call)
        except Exception as error:  # noqa: BLE001 - click's side says what there is to say, whatever it is
            failure = error
        else:
            if status is not None:
                return status
    gc.disable()
    # msgspec takes this along if it happens to be installed, and uses nothing of it on a Python of today.
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    from queuectl_client import cli  # noqa: PLC0415 - as above

    gc.freeze()
    gc.enable()
    if failure is not None:
        cli.fail(failure)
    return cli.main()
