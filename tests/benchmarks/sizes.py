"""How much work is done: all of it, less for a quick look, hardly any to try the suite itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        name: of these sizes.
        drain: jobs of one round of draining.
        rounds: of everything that alternates.
        peer_rounds: of the peers, who are slow.
        peer_limit: seconds that a peer may take for one round.
        bulk: jobs of the bulk file.
        calls: single calls of one round.
        connected: jobs enqueued over many connections in one round.
        million: jobs waiting where there are very many.
        idle: seconds of watching it at rest.
        soak: jobs that go through with retention on.
        kept: of these, how many are kept.
    """

    name: str
    drain: int
    rounds: int
    peer_rounds: int
    peer_limit: float
    bulk: int
    calls: int
    connected: int
    million: int
    idle: float
    soak: int
    kept: int


SIZES = {
    "full": Sizes("full", 5000, 7, 3, 60.0, 100_000, 200, 20_000, 1_000_000, 60.0, 200_000, 5000),
    "quick": Sizes("quick", 1000, 3, 1, 15.0, 20_000, 60, 4_000, 200_000, 10.0, 15_000, 1000),
    "tiny": Sizes("tiny", 60, 2, 1, 10.0, 300, 5, 128, 2_000, 1.0, 600, 100),
}
