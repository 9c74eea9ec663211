"""`python -m queuectld.worker`: what the supervisor starts."""

import sys

# msgspec takes this along if it happens to be installed, and with it `inspect` and `ast`: a megabyte in each worker.
sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]

from queuectld.worker.main import main  # noqa: E402 - after that

if __name__ == "__main__":
    main()
