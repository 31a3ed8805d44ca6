"""The sections of a curve, and its chart in files of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from onnx_cgmq.api.curve_points import Curve, CurvePoint
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.reporting.charts import CurveMarks, Mark, curve_chart, save_curve_chart
from onnx_cgmq.reporting.file_sections import notes_section, settings_section
from onnx_cgmq.reporting.page import Cell, Chart, Charts, Fact, Facts, Row, Section, Table


def curve_sections(found: Curve, command: Sequence[str] | None) -> list[Section]:
    """Makes the sections of a page: a summary, the curve with its points, notes, versions."""
    return [
        Section("summary", "Summary", [Facts(_facts(found), tiles=True)]),
        _curve_section(found),
        notes_section(found.notes),
        settings_section([], command),
    ]


def save_charts(found: Curve, folder: Path) -> list[Path]:
    """Writes the chart of a curve as ``curve.svg`` and ``curve.png``; returns the files."""
    files = [folder / "curve.svg", folder / "curve.png"]
    for file in files:
        save_curve_chart(_marks(found), file)
    return files


def _facts(found: Curve) -> list[Fact]:
    facts = [Fact("Points", str(len(found.points)), f"in {found.seconds:,.0f} s")]
    if not found.complete:
        facts.append(Fact("The curve ended early", found.reason, good=False))
    knee = found.knee
    if knee is not None:
        more = "" if knee.bytes is None else f"{knee.bytes:,} bytes"
        facts.append(Fact("Knee", knee.bound, more))
        facts.append(Fact("Quality there", found.measure.text(knee.quality), found.measure.value))
    facts.append(Fact("Judged on", f"{found.samples:,} held-out samples", "in onnxruntime"))
    return facts


def _curve_section(found: Curve) -> Section:
    labelled = found.measure is Quality.ACCURACY
    columns = ["bound", "cost#", *(["accuracy#"] if labelled else [])]
    columns += ["SNR#", "same class#", "bytes#", "seconds#", "file"]
    rows = [
        _row(point, labelled, f"point-{number}")
        for number, point in enumerate((*found.points, *found.compared))
    ]
    caption = "The cost is on a logarithmic scale. A point leads to its row."
    chart = Chart("Quality against cost", curve_chart(_marks(found)), caption)
    text = (
        "How good the written models are against what they cost, both measured on the files. "
        "No point is worse than a cheaper one: where learning ended so, the cheaper model took its "
        "place. The knee stands highest above the line from the cheapest to the dearest point, "
        f"with the cost by its logarithm: {found.text}."
    )
    return Section("curve", "The curve", [Charts([chart]), Table(columns, rows)], text)


def _row(point: CurvePoint, labelled: bool, anchor: str) -> Row:
    kinds = (*((Quality.ACCURACY,) if labelled else ()), Quality.SNR, Quality.CLASSES)
    taken = f"the model of {point.taken_from}" if point.taken_from else ""
    return Row(
        [
            Cell(point.name),
            Cell("" if point.share is None else f"{point.share:.3%}", point.share),
            *(_quality_cell(kind, point) for kind in kinds),
            Cell("" if point.bytes is None else f"{point.bytes:,}", point.bytes),
            Cell(f"{point.seconds:.1f}", point.seconds),
            Cell(", ".join(filter(None, ["" if point.file is None else point.file.name, taken]))),
        ],
        anchor,
    )


def _quality_cell(kind: Quality, point: CurvePoint) -> Cell:
    value = kind.of(point.float_agreement)
    if value is None:
        return Cell("")
    return Cell(kind.text(value), value if math.isfinite(value) else None)


def _marks(found: Curve) -> CurveMarks:
    in_decibels = found.measure is Quality.SNR
    scale, unit = (1, "dB") if in_decibels else (100, "%")

    def height(point: CurvePoint) -> float | None:
        return scale * point.quality if math.isfinite(point.quality) else None

    drawn = [(n, point) for n, point in enumerate(found.points) if point.share is not None]
    knee = next((place for place, (_, point) in enumerate(drawn) if point is found.knee), None)
    return CurveMarks(
        [100 * (point.share or 0) for _, point in drawn],
        [
            Mark(height(point), f"{point.name}: {found.measure.text(point.quality)}", f"point-{n}")
            for n, point in drawn
        ],
        knee,
        {
            point.name: (100 * point.share, value)
            for point in found.compared
            if point.share is not None and (value := height(point)) is not None
        },
        f"{found.measure.value}, {unit}",
    )
