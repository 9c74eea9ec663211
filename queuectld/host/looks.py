"""When the daemon looks at what nothing tells it of: the file of its socket, the wall clock."""

from __future__ import annotations

import asyncio
import time

LOOK_SECONDS = 5.0
"""Between two looks."""


async def next_look() -> None:
    """Returns at the next moment for a look. It is the same moment for all: a daemon at rest wakes up once for it."""
    await asyncio.sleep(LOOK_SECONDS - time.monotonic() % LOOK_SECONDS)
