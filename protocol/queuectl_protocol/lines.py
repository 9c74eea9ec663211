"""Bytes to lines. No I/O: whoever owns a socket feeds bytes in."""

from __future__ import annotations

MAX_LINE = 1024 * 1024
"""Bytes of a line to the daemon, its newline not counted."""


class Lines:
    """Cuts a stream of bytes into lines, with bounded memory.

    A line longer than the limit is dropped as it comes and yields None in its place; what follows it is read as usual.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()  # not a list of pieces: a line that comes byte by byte would cost 40 bytes for each
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that `data` completes, without their newlines; None for one that was too long.

        The None comes when the limit is passed, not when the line ends: a peer that never ends its line gets its
        answer.
        """
        lines: list[bytes | None] = []
        *ends, rest = data.split(b"\n")
        for piece in ends:
            if not self._rest and not self._dropping and len(piece) <= self._limit:
                lines.append(piece)  # most lines come whole
                continue
            self._add(piece, lines)
            if not self._dropping:
                lines.append(bytes(self._rest))
            self._rest.clear()
            self._dropping = False
        if rest:
            self._add(rest, lines)
        return lines

    def _add(self, piece: bytes, lines: list[bytes | None]) -> None:
        if self._dropping:
            return
        if len(self._rest) + len(piece) > self._limit:
            self._rest.clear()
            self._dropping = True
            lines.append(None)
        else:
            self._rest += piece

    def drop_line(self) -> None:
        """The line that comes now is too long, and whoever sent it was told already."""
        self._dropping = True

    @property
    def drops(self) -> bool:
        """Whether the line that comes now is too long."""
        return self._dropping

    @property
    def rest(self) -> bytes:
        """The beginning of a line that is not complete yet."""
        return bytes(self._rest)

    @property
    def size(self) -> int:
        """Bytes of `rest`."""
        return len(self._rest)
