"""Ids for jobs that were given none."""

from __future__ import annotations

import os

ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
"""No look-alikes: no 0 and o, no 1, i and l, no u (which is read as v)."""

LENGTH = 12

BEGINNING = 3
"""Letters that the ids of a run have in common."""

RUN = 32
"""Ids of a run: among a million jobs, two share an id with a probability of about one in a million."""

_REST = LENGTH - BEGINNING
_EVEN = 256 - 256 % len(ALPHABET)
_TABLE = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_BIASED = bytes(range(_EVEN, 256))  # left in, they would make the first letters of the alphabet more likely


class Ids:
    """Makes ids that come in runs: the ids of a run begin with the same letters, drawn anew for each run.

    The database keeps an index of the ids. If they had nothing in common, each new job would change another page of it,
    and writing those would be most of the cost of an enqueue; a run changes one or two. (For the same reason the UUIDs
    of RFC 9562, section 6.2, begin with the time; but then all ids of a day would look alike.)
    """

    def __init__(self) -> None:
        self._run: list[str] = []
        # A child of fork(2) must not make the ids that its parent will make too.
        os.register_at_fork(after_in_child=self._run.clear)

    def make(self) -> str:
        """A new id. Threads may share one maker."""
        while True:
            try:
                return self._run.pop()
            except IndexError:
                self._run += _make_run()

    def put_back(self, made: str) -> None:
        """Have `made` be the next one again: nobody has got to know it."""
        self._run.append(made)


def _make_run() -> set[str]:
    letters = _letters(BEGINNING + RUN * _REST)
    return {letters[:BEGINNING] + letters[place : place + _REST] for place in range(BEGINNING, len(letters), _REST)}


def _letters(count: int) -> str:
    """Random letters from the system's source (`secrets` is the same, and takes 5 ms to import)."""
    found = b""
    while len(found) < count:
        found += os.urandom(2 * count).translate(_TABLE, _BIASED)
    return found[:count].decode("ascii")
