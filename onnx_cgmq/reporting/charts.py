"""Charts as SVG that takes its colours from the page, so that they fit light and dark.

matplotlib draws them. Its SVG is small, needs no script, and may be read and searched as text; a
library that draws in the browser would have to be in each page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG: Final = "{http://www.w3.org/2000/svg}"
_LINK: Final = "{http://www.w3.org/1999/xlink}href"

_FONT: Final = re.compile(r"font-family: [^;\"]*;?")

_COLOURS: Final = {
    name: f"#01010{number}"
    for number, name in enumerate(("ink", "muted", "line", "card", "weight", "activation", "bad"))
}
"""Colours that nothing else has, by the name of the variable in the style sheet."""

_PRINTED: Final = {
    "ink": "#1c2130",
    "muted": "#5d6579",
    "line": "#d9dde6",
    "card": "#f5f6f9",
    "weight": "#3f51b5",
    "activation": "#c2620a",
    "bad": "#c0272d",
}
"""The same colours in a file of its own: those of the style sheet on white."""


def _style(colours: Mapping[str, str]) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "onnx-cgmq",  # the same names for the same parts, run after run
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": colours["ink"],
        "axes.labelcolor": colours["muted"],
        "axes.edgecolor": colours["line"],
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "grid.color": colours["line"],
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "xtick.color": colours["muted"],
        "ytick.color": colours["muted"],
        "lines.linewidth": 1.5,
    }


_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))

_LEAST_ERROR: Final = 1e-5
"""Where the scale of errors begins at the lowest: smaller ones are drawn there."""


@dataclass(frozen=True)
class Mark:
    """A point along the network.

    Attributes:
        value: Its height; ``None`` leaves a gap.
        text: What is shown where the mouse rests on it.
        anchor: The row of a table that it leads to.
    """

    value: float | None
    text: str
    anchor: str


def widths_chart(weights: Sequence[Mark], activations: Sequence[Mark]) -> str:
    """Draws the mean widths of weights and activations along the network, as bars."""
    with _figure(9, 4.2, rows=2) as (figure, panels):
        for axes, role, marks in zip(
            panels, ("weight", "activation"), (weights, activations), strict=True
        ):
            axes.set_yscale("log", base=2)
            axes.set_ylim(1, FLOAT_BITS)
            axes.set_yticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
            axes.set_ylabel("bits")
            axes.set_title(f"{role}s", loc="left", color=_COLOURS[role])
            for x, mark in enumerate(marks):
                height = max(0.0, (mark.value or 0) - 1)
                (bar,) = axes.bar(x, height, bottom=1, width=0.8, color=_COLOURS[role])
                bar.set_url(f"#{mark.anchor}")
            _along(axes, len(marks))
        return _svg(figure, "Widths along the network", (*weights, *activations))


def errors_chart(
    weights: Sequence[Mark], activations: Sequence[Mark], so_far: Sequence[Mark]
) -> str:
    """Draws relative errors along the network, on a logarithmic scale.

    Args:
        weights: The errors of weights.
        activations: Those that the quantizers of activations make.
        so_far: Those of the same activations against the float model.
    """
    shown = [mark.value for mark in (*weights, *activations, *so_far) if mark.value]
    least = max(_LEAST_ERROR, 10 ** math.floor(math.log10(min(shown, default=1))))
    with _figure(9, 4.2, rows=2) as (figure, panels):
        for axes, role, marks in zip(
            panels, ("weight", "activation"), (weights, activations), strict=True
        ):
            axes.set_yscale("log")
            axes.set_ylabel("relative error")
            axes.set_title(f"{role}s", loc="left", color=_COLOURS[role])
            for x, mark in enumerate(marks):
                height = max(0.0, (mark.value or 0) - least)
                (bar,) = axes.bar(x, height, bottom=least, width=0.8, color=_COLOURS[role])
                bar.set_url(f"#{mark.anchor}")
            _along(axes, len(marks))
        points = [(x, m.value) for x, m in enumerate(so_far) if m.value is not None]
        if points:
            places, heights = zip(*points, strict=True)
            panels[1].plot(
                places, np.maximum(heights, least), color=_COLOURS["ink"], marker=".",
                label="against the float model",
            )  # fmt: skip
            _legend(panels[1])
        for axes in panels:
            axes.set_ylim(least, max(1.0, axes.get_ylim()[1]))
            axes.minorticks_off()
        return _svg(figure, "Relative errors along the network", (*weights, *activations))


def histogram_chart(
    role: str,
    counts: npt.NDArray[np.int64],
    edges: npt.NDArray[np.float64],
    ends: tuple[float, float],
    levels: npt.NDArray[np.float64],
) -> str:
    """Draws how values are spread, with the range and the levels of their grid.

    Args:
        role: Role of the tensor, which gives the colour.
        counts: Values in each bin.
        edges: Ends of the bins.
        ends: Ends of the range.
        levels: The values that the grid has.
    """
    with _figure(3.6, 1.9) as (figure, (axes,)):
        axes.set_yscale("log")
        axes.stairs(counts, edges, fill=True, color=_COLOURS[role], alpha=0.75, baseline=0.5)
        axes.set_ylim(0.5, max(2, 1.5 * counts.max()))
        for end in ends:
            axes.axvline(end, color=_COLOURS["bad"], linestyle="--", linewidth=1)
        height = 0.06  # of the chart: a comb at its foot
        axes.vlines(
            levels, 0, height, color=_COLOURS["ink"], linewidth=0.8,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        axes.minorticks_off()
        axes.set_ylabel("values")
        axes.grid(visible=False)
        return _svg(figure, "Histogram of values", ())


def course_chart(series: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """Draws what changed from epoch to epoch.

    Args:
        series: The values for each epoch by their name, by what they have in common.
    """
    with _figure(9, 2.1 * len(series), rows=len(series)) as (figure, panels):
        for axes, (label, lines) in zip(panels, series.items(), strict=True):
            for (name, values), role in zip(lines.items(), ("weight", "activation"), strict=False):
                heights = [np.nan if value is None else value for value in values]
                axes.plot(
                    range(1, len(heights) + 1), heights, color=_COLOURS[role], label=name,
                    marker=".",
                )  # fmt: skip
            axes.set_ylabel(label)
            axes.locator_params(axis="x", integer=True)
            if len(lines) > 1:
                _legend(axes)
        panels[-1].set_xlabel("epoch")
        return _svg(figure, "The course of the run", ())


@dataclass(frozen=True)
class CurveMarks:
    """The points of a curve.

    Attributes:
        shares: Their costs in percent of the float model's.
        marks: Their qualities, in the order of the costs.
        knee: The place of the knee; ``None`` without one.
        compared: Costs and qualities of further points, by their names.
        label: What the qualities are, with the unit.
    """

    shares: Sequence[float]
    marks: Sequence[Mark]
    knee: int | None
    compared: Mapping[str, tuple[float, float]]
    label: str


def curve_chart(curve: CurveMarks) -> str:
    """Draws quality against cost, which is on a logarithmic scale."""
    with _figure(9, 4.2) as (figure, (axes,)):
        _draw_curve(axes, curve, _COLOURS)
        return _svg(figure, "Quality against cost", curve.marks)


def save_curve_chart(curve: CurveMarks, path: Path) -> None:
    """Draws the same into a file; its suffix, such as ``.png`` or ``.svg``, says of what kind."""
    with _figure(9, 4.2, colours=_PRINTED) as (figure, (axes,)):
        _draw_curve(axes, curve, _PRINTED)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)


def _draw_curve(axes: Axes, curve: CurveMarks, colours: Mapping[str, str]) -> None:
    qualities = [np.nan if mark.value is None else mark.value for mark in curve.marks]
    axes.set_xscale("log")
    axes.plot(curve.shares, qualities, color=colours["weight"])
    for share, quality, mark in zip(curve.shares, qualities, curve.marks, strict=True):
        (point,) = axes.plot([share], [quality], "o", color=colours["weight"])
        point.set_url(f"#{mark.anchor}")
    if curve.knee is not None:
        place = curve.shares[curve.knee], qualities[curve.knee]
        axes.plot(*place, "o", markersize=13, fillstyle="none", color=colours["bad"])
        axes.annotate("knee", place, (12, -12), textcoords="offset points", color=colours["bad"])
    for name, place in curve.compared.items():
        axes.plot(*place, "s", color=colours["activation"])
        axes.annotate(name, place, (8, -4), textcoords="offset points", color=colours["activation"])
    axes.set_xticks(curve.shares, [f"{share:.3g}" for share in curve.shares])
    axes.minorticks_off()
    axes.set_xlabel("cost, % of the float model's")
    axes.set_ylabel(curve.label)


@contextmanager
def _figure(
    width: float, height: float, rows: int = 1, colours: Mapping[str, str] = _COLOURS
) -> Iterator[tuple[Figure, tuple[Axes, ...]]]:
    """Makes a figure with axes below each other, by default in the colours of the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_style(colours)):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, 1, squeeze=False)
        yield figure, tuple(grid[:, 0])


def _legend(axes: Axes) -> None:
    """Puts the legend above the axes, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)


def _along(axes: Axes, count: int) -> None:
    """Makes the horizontal axis that of places in the network, from its input on."""
    axes.set_xlim(-0.6, max(count, 1) - 0.4)
    axes.set_xticks([])
    axes.set_xlabel("from the input to the output")


def _svg(figure: Figure, title: str, marks: Sequence[Mark]) -> str:
    """Makes SVG of a figure: with colours of the page, and a text for each mark."""
    file = StringIO()
    figure.savefig(file, format="svg", metadata=_NO_METADATA)
    text = _FONT.sub("", file.getvalue())  # that of the page
    for name, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    ET.register_namespace("", _SVG.strip("{}"))
    root = ET.fromstring(text)
    texts = {f"#{mark.anchor}": mark.text for mark in marks}
    used = {element.get(_LINK, "").removeprefix("#") for element in root.iter(f"{_SVG}use")}
    for element in root.iter():
        element.text, element.tail = ((part or "").strip() for part in (element.text, element.tail))
        name = element.get("id", "")
        if name and name not in used and element.tag != f"{_SVG}clipPath":
            del element.attrib["id"]  # it would be there once for each chart of the page
        link = element.attrib.pop(_LINK, None)
        if link is None:
            continue
        element.set("href", link)
        if link in texts:
            ET.SubElement(element, f"{_SVG}title").text = texts[link]
    for style in root.findall(f"{_SVG}defs[{_SVG}style]"):
        root.remove(style)  # it would hold for all of the page, which has one itself
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", title)
    return ET.tostring(root, encoding="unicode")
