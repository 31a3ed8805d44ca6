"""The points of a curve, and what they say together: which is the knee, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from rich.console import Group

from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.api.verification import Check
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.inspection.terminal import Column, FittedTable, size_text

_SHORTEST_BOUND: Final = 12
"""To how many characters bounds are shortened in a narrow terminal."""

LEARNED: Final = "learned"
"""The method of the points whose widths were learned: those of the curve itself."""


@dataclass(frozen=True)
class CurvePoint:
    """A written model, with what it costs and how good it is.

    Attributes:
        method: ``learned`` for a point of the curve, or what it is compared with, such as
            ``uniform 4/8``.
        bound: The bound that it keeps; empty for models that keep none.
        share: Its cost as a share of the float model's, counted from the written model alone;
            ``None`` where that can't be counted.
        quality: How good it is, by :attr:`Curve.measure`.
        float_agreement: How it agrees with the float model on held-out samples, in onnxruntime.
        check: The verification in which its cost was counted; ``None`` for models of others.
        model: The written model.
        plan: The widths and ranges of its tensors; ``None`` for models of others.
        seconds: How long it took.
        file: Where it was written, if anywhere.
        bytes: Size of the file.
        taken_from: The lower bound whose model took its place because it is better; empty if none
            did.
    """

    method: str
    bound: str
    share: float | None
    quality: float
    float_agreement: FloatAgreement
    check: Check | None
    model: ir.Model = field(repr=False)
    plan: BitPlan | None = field(repr=False)
    seconds: float
    file: Path | None = None
    bytes: int | None = None
    taken_from: str = ""

    @property
    def name(self) -> str:
        """The bound of a point of the curve, or else the method."""
        return self.bound if self.method == LEARNED else self.method

    def to_record(self) -> dict[str, Any]:
        """The figures as JSON values; numbers that are not finite become ``None``."""
        return {
            "method": self.method,
            "bound": self.bound or None,
            "share": self.share,
            "quality": self.quality if math.isfinite(self.quality) else None,
            "float_agreement": self.float_agreement.to_record(),
            "check": None if self.check is None else json.loads(self.check.to_json()),
            "seconds": round(self.seconds, 3),
            "file": None if self.file is None else str(self.file),
            "bytes": self.bytes,
            "taken_from": self.taken_from or None,
        }


@dataclass(frozen=True)
class Curve:
    """How good models are against what they cost, all from one run.

    Attributes:
        points: The points, from the dearest to the cheapest. None is worse than a cheaper one.
        compared: Further points, which are not part of the curve.
        measure: What says how good a point is: accuracy if there are labels, else the
            signal-to-noise ratio against the float model.
        cost: The kind of the cost: ``bops``, ``size``, ``activations`` or ``cost``.
        samples: Number of held-out samples on which the points were judged.
        complete: Whether it has all points that were asked for.
        reason: ``complete``; ``points left out``, where models did not compute what was learned; or
            why no further points were learned: ``interrupted``, ``time limit`` and the others of
            :class:`~onnx_cgmq.learn.outcome.Outcome`.
        seconds: How long it took, from the float model to the last point.
        notes: What the user should know.
    """

    points: tuple[CurvePoint, ...]
    compared: tuple[CurvePoint, ...]
    measure: Quality
    cost: str
    samples: int
    complete: bool
    reason: str
    seconds: float
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def knee(self) -> CurvePoint | None:
        """The point that stands highest above the line from the cheapest to the dearest point.

        The cost counts by its logarithm; both axes are scaled so that the curve goes from 0 to 1.
        If all points are equally good, it is the cheapest. ``None`` if no point is above the line,
        or there are fewer than three different costs.
        """
        return find_knee(self.points)

    @property
    def text(self) -> str:
        """Which point is the knee, in words."""
        knee = self.knee
        if knee is None:
            return "no point stands out: the curve has no knee"
        return (
            f"the knee is at {knee.bound}: {self.measure.value} {self.measure.text(knee.quality)}"
        )

    def to_json(self, indent: int | None = 2) -> str:
        """Makes JSON text of all figures."""
        record = {
            "points": [point.to_record() for point in self.points],
            "compared": [point.to_record() for point in self.compared],
            "knee": None if self.knee is None else self.knee.bound,
            "measure": self.measure.value,
            "cost": self.cost,
            "samples": self.samples,
            "complete": self.complete,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }
        return json.dumps(record, indent=indent)

    def table(self) -> Group:
        """Makes a table for a terminal, which rich prints."""
        labelled = self.measure is Quality.ACCURACY
        table = FittedTable(
            Column("bound", shortest=_SHORTEST_BOUND),
            Column("cost", right=True),
            *([Column("accuracy", right=True)] if labelled else []),
            Column("SNR", right=True, priority=1),
            Column("same class", right=True, priority=2),
            Column("size", right=True, priority=1),
            Column("", wraps=True),
            title="Curve",
        )
        for point in (*self.points, *self.compared):
            mark = "knee" if point is self.knee else ""
            taken = f"as {point.taken_from}" if point.taken_from else ""
            cells = [
                *([_text(Quality.ACCURACY, point)] if labelled else []),
                _text(Quality.SNR, point),
                _text(Quality.CLASSES, point),
                "" if point.bytes is None else size_text(point.bytes),
            ]
            share = "" if point.share is None else f"{point.share:.3%}"
            table.add_row(point.name, share, *cells, ", ".join(filter(None, (mark, taken))))
        judged = f"judged on {self.samples:,} held-out samples in onnxruntime; {self.text}"
        return Group(table, judged, *(f"note: {note}" for note in self.notes))


def _text(quality: Quality, point: CurvePoint) -> str:
    value = quality.of(point.float_agreement)
    return "" if value is None else quality.text(value)


def find_knee(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """Finds the knee (:attr:`Curve.knee`)."""
    known = {point.share: point for point in points if point.share}  # of equal ones the lowest
    if len(known) < 3:
        return None
    shares = np.log(list(known))
    qualities = np.array([point.quality for point in known.values()])
    finite = qualities[np.isfinite(qualities)]
    if not finite.size:
        return None
    qualities = np.clip(qualities, finite.min(), finite.max())
    spread = qualities.max() - qualities.min()
    cheapest = min(known)
    if spread == 0:
        return known[cheapest]
    places = (shares - shares.min()) / (shares.max() - shares.min())
    heights = (qualities - qualities.min()) / spread - places
    best = int(heights.argmax())
    return list(known.values())[best] if heights[best] > 1e-9 else None
