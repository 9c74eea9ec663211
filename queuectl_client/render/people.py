"""Answers for people: tables that fit the terminal, with colours; the same as plain text where there is no terminal.

rich is imported only to draw on a terminal.
"""

from __future__ import annotations

import sys

from queuectl_client.render.safe import visible

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

GAP = 2
"""Blank columns between two columns of a table."""
LEAST = 10
"""Columns of the terminal that a flexible column keeps, or the table loses another one."""


class Cell:
    """Text with a style of rich's, which only a terminal shows."""

    __slots__ = ("style", "text")

    def __init__(self, text: str, style: str = "") -> None:
        self.text = text
        self.style = style


class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: numbers stand to the right.
        rank: on a terminal that is too narrow, columns with the greatest rank are left out first; 0 always stays.
        flexible: cut to what width the others leave.
        wrap: where it is too long it goes on in the next line, and is not cut.
    """

    __slots__ = ("flexible", "rank", "right", "title", "wrap")

    def __init__(
        self, title: str, *, right: bool = False, rank: int = 0, flexible: bool = False, wrap: bool = False
    ) -> None:
        self.title = title
        self.right = right
        self.rank = rank
        self.flexible = flexible
        self.wrap = wrap


class Table:
    """Rows under headings. Cells hold text as it came from outside: it is made visible when it is drawn.

    Attributes:
        widths: of plain text: how wide each column has become; handed from page to page, so that pages align.
    """

    __slots__ = ("columns", "heading", "rows", "widths")

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell]],
        *,
        heading: bool = True,
        widths: dict[int, int] | None = None,
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.heading = heading
        self.widths = {} if widths is None else widths


Part = Table | Cell
"""A table or a line of text."""

STATE_STYLES = {
    "pending": "cyan",
    "processing": "blue",
    "completed": "green",
    "failed": "yellow",
    "dead": "red",
    "cancelled": "dim",
}


def state_cell(state: str) -> Cell:
    return Cell(state, STATE_STYLES.get(state, ""))


def draw(parts: Sequence[Part]) -> None:
    """Write to standard output: with tables and colours on a terminal, else as plain text."""
    if not sys.stdout.isatty():
        sys.stdout.write(plain(parts))
        return
    drawing = console()
    drawing.print(renderable(parts, drawing.width), end="")


def console() -> Console:
    """A console of rich's on standard output. It obeys NO_COLOR, and interprets nothing in the text it is given."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms, for people on a terminal only

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def plain(parts: Sequence[Part]) -> str:
    """As aligned text, nothing left out and nothing cut. An empty cell is a `-`, so that columns can be counted."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Cell):
            lines.append(visible(part.text))
            continue
        rows = [[visible(cell.text) or "-" for cell in row] for row in part.rows]
        if part.heading:
            rows.insert(0, [column.title for column in part.columns])
        widths = part.widths
        for row in rows:
            for at, text in enumerate(row):
                widths[at] = max(widths.get(at, 0), len(text))
        for row in rows:
            aligned = [
                text.rjust(widths[at]) if column.right else text.ljust(widths[at])
                for at, (column, text) in enumerate(zip(part.columns, row, strict=True))
            ]
            lines.append((" " * GAP).join(aligned).rstrip())
    return "".join(f"{line}\n" for line in lines)


def renderable(parts: Sequence[Part], width: int) -> RenderableType:
    """As something that rich draws, for a terminal of `width` columns."""
    from rich.console import Group  # noqa: PLC0415 - as in `console`
    from rich.text import Text  # noqa: PLC0415

    return Group(*(
        Text(visible(part.text), style=part.style) if isinstance(part, Cell) else _rich_table(part, width)
        for part in parts
    ))  # fmt: skip


def _rich_table(table: Table, width: int) -> RenderableType:
    from rich.cells import cell_len  # noqa: PLC0415 - as in `console`
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = [[(visible(cell.text), cell.style) for cell in row] for row in table.rows]
    widths = [
        max([cell_len(column.title) if table.heading else 0, *(cell_len(row[at][0]) for row in rows)])
        for at, column in enumerate(table.columns)
    ]
    shown = fitting(table.columns, widths, width)
    drawn = RichTable(
        box=None,
        show_header=table.heading,
        header_style="bold",
        padding=(0, GAP, 0, 0),
        pad_edge=False,
        collapse_padding=True,
    )
    for at, room in shown.items():
        column = table.columns[at]
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
            width=room,
        )
    for row in rows:
        drawn.add_row(*(Text(row[at][0], style=row[at][1]) for at in shown))
    return drawn


def fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> dict[int, int]:
    """Which columns are shown on a terminal of `width` columns, and how wide.

    Args:
        columns: of the table.
        widths: what each needs to be shown whole.
        width: what there is for all.

    Returns:
        Places in `columns`, each with the room that it gets.
    """
    kept = list(range(len(columns)))

    def needed() -> int:
        return sum(min(widths[at], LEAST) if columns[at].flexible else widths[at] for at in kept) + GAP * (
            len(kept) - 1
        )

    while needed() > width:
        last = max(kept, key=lambda at: columns[at].rank)
        if columns[last].rank == 0:
            break
        kept.remove(last)
    room = {at: min(widths[at], width) for at in kept}
    flexible = sorted((at for at in kept if columns[at].flexible), key=lambda at: widths[at])
    left = width - GAP * (len(kept) - 1) - sum(room[at] for at in kept if not columns[at].flexible)
    for others, at in zip(range(len(flexible) - 1, -1, -1), flexible, strict=True):
        # What one does not need is left to those that need more.
        room[at] = max(1, min(widths[at], left // (others + 1)))
        left -= room[at]
    if left < 0 and room:
        # Even the columns that always stay are too wide together: the widest pays.
        widest = max(room, key=lambda at: room[at])
        room[widest] = max(1, room[widest] + left)
    return room
