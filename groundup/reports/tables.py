"""Tables that are read at any width: numbers stay whole, names fold, and where the columns have no
room next to each other, each row is laid out below the one before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["GAP", "Grid", "can_print"]

# columns of a terminal between two columns of a table
GAP = 2
# what a column of texts folds to at the least, and the longest word that it keeps whole
NARROW = 16
WORD = 24
SEPARATOR = " · "
# characters from which a cell gets a line of its own where rows are laid out one by one
LONG = 40
# where a long word may go on in the next line: behind these
_PIECES = re.compile(r"[^\s._/-]*[\s._/-]*")


@dataclass(frozen=True)
class Grid:
    """A table of texts and numbers.

    Attributes:
        title: Above it; empty: none.
        columns: The headings; all empty: none are shown.
        rows: Texts, as they are: nothing in them is read as markup. They may be shorter than the
            headings.
        numbers: Which columns hold numbers: these never fold, and end at the same place.
        caption: Below it; empty: none.
        left: Of the columns that never fold, those that begin at the same place, such as bars.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Text]]
    numbers: frozenset[int] = frozenset()
    caption: str = ""
    left: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        numbers: int | None = None,
        caption: str = "",
    ) -> Grid:
        """Return a table of plain texts.

        Args:
            title: Above it.
            columns: The headings.
            rows: The cells.
            numbers: From which column on there are numbers; None: there are none.
            caption: Below it.
        """
        first = len(columns) if numbers is None else numbers
        texts = [[Text(cell) for cell in row] for row in rows]
        holds = frozenset(range(first, len(columns)))
        return cls(title, tuple(columns), texts, holds, caption)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold", overflow="fold")
        widths = self._fit(options.max_width)
        if widths is not None:
            yield self._side_by_side(widths)
        else:
            yield from self._one_by_one(options.max_width)
        if self.caption:
            yield Text(self.caption, style="dim")

    def _fit(self, room: int) -> list[int] | None:
        """Return the width of each column, or None where there is no room for all of them."""
        least, widths = zip(*(self._widths_of(n) for n in range(len(self.columns))), strict=True)
        room -= GAP * (len(self.columns) - 1)
        if sum(least) > room:
            return None
        found = list(widths)
        while sum(found) > room:
            # The widest gives way first, so that short names stay whole.
            n = max(range(len(found)), key=lambda n: (found[n] > least[n], found[n]))
            found[n] = max(least[n], found[n] - max(1, (sum(found) - room) // 4))
        return found

    def _widths_of(self, column: int) -> tuple[int, int]:
        """Return the least width of a column, and the width in which nothing of it folds."""
        heading = self.columns[column]
        cells = [row[column].plain for row in self.rows if len(row) > column]
        widest = max((_width(cell) for cell in cells), default=0)
        least = widest
        if column not in self.numbers:
            words = [cell_len(word) for cell in cells for word in cell.split()]
            whole = max((size for size in words if size <= WORD), default=0)
            least = min(widest, max(NARROW, whole))
        word = max((cell_len(word) for word in heading.split()), default=0)
        return max(least, word, 1), max(widest, cell_len(heading), 1)

    def _side_by_side(self, widths: Sequence[int]) -> Table:
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, GAP, 0, 0),
            show_header=any(self.columns),
            header_style="dim",
        )
        for n, (heading, width) in enumerate(zip(self.columns, widths, strict=True)):
            justify: Literal["left", "right"] = "left"
            if n in self.numbers - self.left:
                justify = "right"
            table.add_column(Text(heading), width=width, overflow="fold", justify=justify)
        for row in self.rows:
            cells = enumerate(row[: len(self.columns)])
            table.add_row(*(c if n in self.numbers else _break(c, widths[n]) for n, c in cells))
        return table

    def _one_by_one(self, room: int) -> Iterator[Text]:
        """Yield each row as a heading, its first cell, and the other cells with their names."""
        for row in self.rows:
            heading, *cells = row[: len(self.columns)]
            yield Text(heading.plain, style=heading.style or "bold", overflow="fold")
            line = Text(overflow="fold")
            for name, cell in zip(self.columns[1:], cells, strict=False):
                if not cell.plain:
                    continue
                fact = Text(f"{name} ".lstrip(), style="dim").append_text(cell)
                long = _width(cell.plain) > LONG
                if line.plain and (long or line.cell_len + fact.cell_len + 5 > room):
                    yield _indent(line)
                    line = Text(overflow="fold")
                line = line.append(SEPARATOR if line.plain else "").append_text(fact)
                if long:
                    yield _indent(line)
                    line = Text(overflow="fold")
            if line.plain:
                yield _indent(line)


def _break(cell: Text, width: int) -> Text:
    """Return a cell whose long words, such as paths and dotted keys, go on in the next line after
    one of their separators."""
    if all(cell_len(word) <= width for word in cell.plain.split()):
        return cell
    broken = Text(style=cell.style)
    room = width
    for piece in _PIECES.findall(cell.plain):
        size = cell_len(piece.rstrip())
        if size > room and room < width:
            broken.append("\n")
            room = width
        broken.append(piece)
        room -= cell_len(piece)
    return broken


def _indent(line: Text) -> Text:
    return Text("  ", overflow="fold").append_text(line)


def _width(cell: str) -> int:
    return max((cell_len(line) for line in cell.splitlines()), default=0)


def can_print(console: Console, character: str) -> bool:
    """Whether a console's encoding has a character."""
    try:
        character.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
