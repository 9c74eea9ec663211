"""Text from outside, made harmless for a terminal.

Commands, labels, errors, names of files: all of them can hold bytes that a terminal obeys. Whatever is not plain text
is shown as an escape, so that it is seen and does nothing.
"""

from __future__ import annotations

_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}

_HARMFUL = (
    range(0x20),  # C0: escape, bell, carriage return ...
    range(0x7F, 0xA0),  # DEL, and C1, which some terminals obey like ESC [
    range(0xAD, 0xAE),  # soft hyphen: invisible
    range(0x61C, 0x61D),  # Arabic letter mark
    range(0x180E, 0x180F),  # an invisible separator
    range(0x200B, 0x2010),  # zero width spaces and joiners, direction marks
    range(0x2028, 0x202F),  # line and paragraph separator, embeddings and overrides of direction
    range(0x2060, 0x2070),  # word joiner, invisible operators, isolates
    range(0xD800, 0xE000),  # halves of pairs, which stand for bytes that are not UTF-8 and can't be written
    range(0xFEFF, 0xFF00),  # byte order mark
    range(0xFFF9, 0xFFFC),  # interlinear annotations
    range(0xE0000, 0xE0080),  # invisible tags
)


def _escape(code: int) -> str:
    if chr(code) in _NAMED:
        return _NAMED[chr(code)]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_tables: list[dict[int, str]] = []
"""For text, and for JSON; made when they are first needed: most commands meet plain text only."""


def _table() -> dict[int, str]:
    return _made()[0]


def _json_escape(code: int) -> str:
    units = chr(code).encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _json_table() -> dict[int, str]:
    return _made()[1]


def _made() -> list[dict[int, str]]:
    if not _tables:
        codes = [code for codes in _HARMFUL for code in codes]
        # In JSON text, what is below 0x20 is an escape already, or white space between values.
        _tables.extend((
            {code: _escape(code) for code in codes}, {code: _json_escape(code) for code in codes if code >= 0x7F}
        ))  # fmt: skip
    return _tables


def visible(text: str) -> str:
    """`text` on one line, with everything that is not plain text as an escape."""
    return text if text.isascii() and text.isprintable() else text.translate(_table())


def visible_json(text: str) -> str:
    """JSON text that means the same, with everything that is not plain text as an escape."""
    return text if text.isascii() and "\x7f" not in text else text.translate(_json_table())
