"""Versions: of the program, and of the wire."""

__version__ = "0.1.0"

PROTOCOL = 1
"""Raised when a client of the version before could misunderstand, or be misunderstood."""
