"""Ids for jobs that were given none."""

from __future__ import annotations

import os

ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
"""No look-alikes: no 0 and o, no 1, i and l, no u (which is read as v)."""

LENGTH = 12
"""30^12 ids: among a million jobs, two share one with a probability below one in a million."""

_EVEN = 256 - 256 % len(ALPHABET)
_TABLE = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_BIASED = bytes(range(_EVEN, 256))  # left in, they would make the first letters of the alphabet more likely


def make_id() -> str:
    """A new random id, from the system's source of randomness (`secrets` is the same, and takes 5 ms to import)."""
    found = b""
    while len(found) < LENGTH:
        found += os.urandom(2 * LENGTH).translate(_TABLE, _BIASED)
    return found[:LENGTH].decode("ascii")
