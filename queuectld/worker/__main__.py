"""`python -m queuectld.worker`: what the supervisor starts."""

import sys

# msgspec takes this along if it happens to be installed, and with it `inspect` and `ast`: a megabyte in each worker.
sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]

from queuectld import start  # noqa: E402 - after that

# Before the other imports, since some of them open files for good: ctypes opens libffi.
start.open_standard_descriptors()

from queuectld.worker.main import main  # noqa: E402 - after that

if __name__ == "__main__":
    main()
