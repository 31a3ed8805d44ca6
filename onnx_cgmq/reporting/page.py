"""A page of sections, each of which holds blocks: facts, sentences, tables, charts.

Whatever a page shows is one of these blocks, so a new section needs no template of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Final

from onnx_cgmq.errors import ConfigError

_PACKAGES: Final = ("jinja2", "matplotlib")


@dataclass(frozen=True)
class Fact:
    """A name and what holds of it.

    Attributes:
        name: A word or two.
        text: What holds.
        more: A few words below the text, in small print.
        good: Whether it is as wanted; ``None`` where nothing is wanted.
    """

    name: str
    text: str
    more: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Facts:
    """A list of facts: as tiles, or as lines.

    Attributes:
        facts: The facts.
        tiles: Whether they are shown large.
    """

    kind: ClassVar[str] = "facts"

    facts: Sequence[Fact]
    tiles: bool = False


@dataclass(frozen=True)
class Sentences:
    """A list of sentences."""

    kind: ClassVar[str] = "sentences"

    sentences: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        key: The number by which a click on the head of its column sorts; without, the text counts.
        bar: Length of a bar below the text, from 0 to 1; ``None`` for no bar.
        look: A class of the style sheet, such as ``weight``: the colour of the bar.
    """

    text: str
    key: float | None = None
    bar: float | None = None
    look: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: A cell for each column.
        anchor: What a link of a chart leads to; empty for none.
    """

    cells: Sequence[Cell]
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """A table that is sorted by a click on the head of a column.

    Attributes:
        columns: Heads of the columns. A head that ends with ``#`` is that of numbers.
        rows: The rows.
    """

    kind: ClassVar[str] = "table"

    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: What it shows.
        svg: The chart as SVG.
        caption: How it is read.
    """

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts below each other, or small ones side by side.

    Attributes:
        charts: The charts.
        small: Whether they fit side by side.
    """

    kind: ClassVar[str] = "charts"

    charts: Sequence[Chart]
    small: bool = False


Block = Facts | Sentences | Table | Charts


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        anchor: What links to it lead to.
        title: Its title.
        blocks: What it shows.
        text: A sentence or two on what that is.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its title.
        sections: Its sections.
        footer: A line at its end.
    """

    title: str
    sections: Sequence[Section]
    footer: str = ""

    def html(self) -> str:
        """Makes the HTML text of the page, which needs no other file and no network."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("onnx_cgmq.reporting"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html").render(page=self)


def check_report_packages() -> None:
    """Refuses to begin what would end without the packages that a report needs.

    Raises:
        ConfigError: One of them is missing.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"an HTML report needs {' and '.join(missing)}, which is not installed; "
            "install it with: pip install 'onnx-cgmq[report]'"
        )
