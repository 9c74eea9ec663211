"""Versions: of the program, and of the wire."""

__version__ = "0.2.1"

PROTOCOL = 1
"""Raised when a client of the version before could misunderstand, or be misunderstood."""
