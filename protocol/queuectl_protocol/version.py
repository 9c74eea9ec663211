"""Versions: of the program, and of the wire."""

__version__ = "0.3.0"

PROTOCOL = 1
"""Raised when a client of the version before could misunderstand, or be misunderstood."""
