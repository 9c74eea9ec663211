"""`python -m queuectl_client` is `queuectl`."""

from __future__ import annotations

from queuectl_client.entry import main

if __name__ == "__main__":
    main()
