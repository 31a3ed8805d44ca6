"""Further points to compare a curve with: uniform widths, and onnxruntime's own quantizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from onnx_cgmq.api.curve_bounds import bound_at
from onnx_cgmq.api.curve_points import CurvePoint
from onnx_cgmq.api.float_agreement import float_agreement
from onnx_cgmq.api.opened_model import OpenedModel
from onnx_cgmq.api.points import PointMaker
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.static_quantization import quantize_static
from onnx_cgmq.preparation.prepare import prepare

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.schedule import Schedule

_UNIFORM: Final = ((8, 8), (4, 8), (4, 4))
"""Widths of weights and of activations that people choose."""

_STATIC: Final = "quantize_static"

COMPARED: Final = (*(f"uniform {weights}/{others}" for weights, others in _UNIFORM), _STATIC)
"""The methods of all further points."""


def comparison(maker: PointMaker, kind: CostKind, schedule: Schedule) -> Iterator[CurvePoint]:
    """Yields the further points; what can't be made is left out, with a note.

    Args:
        maker: Made the points of the curve.
        kind: The kind of the cost.
        schedule: What was done for each point of the curve.
    """
    seen = set()
    for weights, activations in _UNIFORM:
        widths = _uniform(maker.opened, weights, activations)
        cost = maker.opened.costs.cost(kind)
        assert cost is not None  # the points of the curve have it
        amount = cost.total(widths)
        if amount not in seen:  # where a target allows few widths, two may be the same
            seen.add(amount)
            bound = bound_at(maker.opened.costs, kind, amount)
            yield maker.uniform(f"uniform {weights}/{activations}", widths, bound, schedule)
    try:
        yield _static(maker, kind)
    except ModelError as error:
        maker.emit(Notice(f"{_STATIC} is left out of the comparison: {error}"))


def _uniform(opened: OpenedModel, weights: int, activations: int) -> Widths:
    """The widest width of each tensor up to that of its role, or else its narrowest."""
    found = {}
    for name, spec in opened.costs.specs.items():
        wanted = {Role.WEIGHT: weights, Role.ACTIVATION: activations}.get(spec.role)
        ladder = spec.ladder.nonzero
        narrow = [width for width in ladder if wanted is None or width <= wanted]
        found[name] = np.full(spec.gate_shape, max(narrow, default=ladder[0]), dtype=np.int64)
    return found


def _static(maker: PointMaker, kind: CostKind) -> CurvePoint:
    """The model that onnxruntime's quantizer makes on the training samples.

    Raises:
        ModelError: onnxruntime can't make or run it, or its quality can't be told.
    """
    began, opened = time.monotonic(), maker.opened
    prepared = prepare(load_model(opened.source), runtime=opened.config.runtime)
    model = quantize_static(prepared, opened.train)
    agreement = float_agreement((opened.source, prepared), model, opened.held_out)
    assert maker.measure is not None  # the points of the curve were judged
    quality = maker.measure.of(agreement)
    if quality is None:
        raise ModelError(f"its {maker.measure.value} can't be told")
    share = None
    if kind is CostKind.BOPS:
        share = inspect(model).rbop
    seconds = time.monotonic() - began
    return CurvePoint(_STATIC, "", share, quality, agreement, None, model, None, seconds)
