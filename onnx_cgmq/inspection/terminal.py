"""Tables and numbers for terminals: words stay whole, whatever the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP: Final = 2
"""Blanks between two columns."""

_ELLIPSIS: Final = "..."
_UNITS: Final = "KMGT"


@dataclass(frozen=True)
class Column:
    """A column of a :class:`FittedTable`.

    Attributes:
        title: What stands above it.
        right: Whether it is aligned to the right, as numbers are.
        priority: Where the table is too wide, columns with the highest number go first; those with
            0 stay.
        shortest: To how many characters its words may be shortened; 0 keeps them.
        wraps: Whether it is text that may go on in the next line, at the end of a word.
    """

    title: str
    right: bool = False
    priority: int = 0
    shortest: int = 0
    wraps: bool = False


class FittedTable:
    """A table that fits the width of the terminal without breaking words.

    Where it is too wide, long words are shortened in the middle first; then columns are left out.

    Args:
        columns: The columns.
        title: What stands above the table.
    """

    def __init__(self, *columns: Column, title: str = "") -> None:
        self._columns = columns
        self._title = title
        self._rows: list[tuple[str, ...]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """Adds a row, with a cell for each column."""
        self._rows.append(cells)

    def add_section(self) -> None:
        """Draws a line behind the last row."""
        self._sections.add(len(self._rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, widths = self._layout(options.max_width)
        # The box draws a blank between two columns too.
        table = Table(box=SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        for index, width in zip(shown, widths, strict=True):
            column = self._columns[index]
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=not column.wraps,
                width=width,
            )
        for number, row in enumerate(self._rows):
            if number in self._sections:
                table.add_section()
            cells = zip(shown, widths, strict=True)
            # As Text, since brackets in a name are no markup.
            table.add_row(*(Text(_shortened_words(row[index], width)) for index, width in cells))
        if self._title:
            yield Text(self._title, style="bold")
        yield table

    def _layout(self, room: int) -> tuple[list[int], list[int]]:
        """Chooses the columns to show, by their index, and the width of each."""
        shown = list(range(len(self._columns)))
        while True:
            most = [self._width(index) for index in shown]
            least = [self._least(index, width) for index, width in zip(shown, most, strict=True)]
            spare = room - sum(least) - _GAP * (len(shown) - 1)
            last = max(shown, key=lambda index: self._columns[index].priority)
            if spare >= 0 or not self._columns[last].priority:
                return shown, _spread(least, most, max(0, spare))
            shown.remove(last)

    def _width(self, index: int) -> int:
        cells = (self._columns[index].title, *(row[index] for row in self._rows))
        return max(map(cell_len, cells))

    def _least(self, index: int, width: int) -> int:
        column = self._columns[index]
        shortest = max(column.shortest, cell_len(column.title))
        return min(width, shortest) if column.shortest else width


def _spread(least: Sequence[int], most: Sequence[int], spare: int) -> list[int]:
    """Gives spare characters to the columns that lack some, the same number to each at a time."""
    widths = list(least)
    while spare:
        lacking = [i for i, width in enumerate(widths) if width < most[i]]
        if not lacking:
            break
        share = max(1, min(spare // len(lacking), *(most[i] - widths[i] for i in lacking)))
        for i in lacking[:spare]:
            widths[i] += share
            spare -= share
    return widths


def _shortened_words(text: str, width: int) -> str:
    """Shortens each word that is longer than a width in its middle."""
    return " ".join(_shortened(word, width) for word in text.split(" "))


def _shortened(word: str, width: int) -> str:
    if cell_len(word) <= width:
        return word
    kept = max(0, width - len(_ELLIPSIS))
    while True:
        tail = kept // 2
        shown = f"{word[: kept - tail]}{_ELLIPSIS}{word[len(word) - tail :]}"
        if cell_len(shown) <= width or not kept:
            return shown
        kept -= 1  # some characters take two cells


def number_text(number: float) -> str:
    """Writes a number in a few characters: ``1,234``, ``115.6 M``."""
    if number < 9_999.5:
        return f"{number:,.0f}"
    power = next((p for p in range(1, len(_UNITS)) if number < 999.95 * 1000**p), len(_UNITS))
    return f"{number / 1000**power:,.1f} {_UNITS[power - 1]}"


def size_text(number: int) -> str:
    """Writes a number of bytes in a few characters: ``1,234 bytes``, ``3.5 MB``."""
    text = number_text(number)
    return f"{text} bytes" if text[-1].isdecimal() else f"{text}B"
