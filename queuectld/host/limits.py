"""How many connections and workers the limit of open files (RLIMIT_NOFILE) leaves room for."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit does; the soft limit as it was, which children get back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft


_SPARE = 32
"""Descriptors for the store, the log, sockets to listen on, and what is open for a moment only."""


def connection_limit() -> int:
    """Clients that may be connected; half of the descriptors is left for workers, and for logs that are followed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _SPARE) // 2)


def workers_at_once() -> int:
    """Workers that may be connected, and that may be watched by a pidfd: each half of what clients do not have.

    There may be more of them, of a daemon with a higher limit. They wait for each other then, and not clients for them.
    """
    return max(4, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE) // 4)


def worker_limit() -> int:
    """Workers that a person may ask for: half of those at once, for while they are replaced there are more."""
    return workers_at_once() // 2
