"""Narrowing and widening: the bound is law, the order is importance per cost."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import ShapeInferencePass

from onnx_cgmq.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.cost.bound import CostKind, CostModel
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.gates import Ladders, Widths, narrow_until, widen_within

_LADDER = (2, 4, 8, 16, 32)
_TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 6] x) => (float[N, 3] y)
<float[6, 5] w = {%s}, float[5, 3] v = {%s}>
{ h = MatMul(x, w)
  r = Relu(h)
  y = MatMul(r, v) }
"""


def _model(granularity: Granularity, kind: CostKind = CostKind.BOPS) -> CostModel:
    model = ir.from_onnx_text(_TEXT % (", ".join("0" * 30), ", ".join("0" * 15)))
    ShapeInferencePass()(model)
    shapes = {"x": (1, 6), "w": (6, 5), "r": (1, 5), "v": (5, 3)}
    specs = {
        name: QuantizerSpec(
            name,
            Role.WEIGHT if name in "wv" else Role.ACTIVATION,
            GridForm.SYMMETRIC if name in "wv" else GridForm.UNSIGNED,
            granularity,
            Ladder(_LADDER),
            shape,
            1 if granularity is Granularity.CHANNEL else None,
        )
        for name, shape in shapes.items()
    }
    return CostModel(mac_ops(model), specs, kind)


def _random(model: CostModel, seed: int) -> tuple[Widths, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    widths = {n: generator.choice(_LADDER, s.gate_shape) for n, s in model.specs.items()}
    weights = {n: generator.random(s.gate_shape) for n, s in model.specs.items()}
    return {n: np.asarray(w, dtype=np.int64) for n, w in widths.items()}, weights


def _ladders(model: CostModel) -> Ladders:
    return Ladders({name: spec.ladder.widths for name, spec in model.specs.items()})


@given(
    granularity=st.sampled_from(list(Granularity)),
    kind=st.sampled_from(list(CostKind)),
    seed=st.integers(0, 10_000),
    share=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_is_kept_from_any_state(
    granularity: Granularity, kind: CostKind, seed: int, share: float
) -> None:
    model = _model(granularity, kind)
    widths, weights = _random(model, seed)
    full = {n: np.full(s.gate_shape, 32, dtype=np.int64) for n, s in model.specs.items()}
    smallest, _ = model.minimum()
    limit = smallest + int(share * (model.cost(full) - smallest))

    def score(upper: Widths, lower: Widths) -> dict[str, np.ndarray]:
        return {name: weights[name] * (upper[name] - lower[name]) for name in upper}

    narrowed = narrow_until(model, _ladders(model), widths, limit, score)
    assert model.cost(narrowed) <= limit
    assert all((narrowed[name] <= widths[name]).all() for name in widths)
    widened = widen_within(model, _ladders(model), narrowed, limit, score, largest=8)
    assert model.cost(widened) <= limit
    assert all((widened[name] >= narrowed[name]).all() for name in widths)
    above = {name: (widened[name] > 8) & (narrowed[name] <= 8) for name in widths}
    assert not any(mask.any() for mask in above.values())


def test_the_least_important_falls_first_and_the_most_important_rises_first() -> None:
    model = _model(Granularity.TENSOR)
    widths = {name: np.array(8) for name in model.specs}
    value = {"x": 9.0, "w": 1.0, "r": 9.0, "v": 9.0}

    def score(upper: Widths, lower: Widths) -> dict[str, np.ndarray]:
        return {name: np.array(value[name]) for name in upper}

    limit = model.cost({**widths, "w": np.array(4)})
    narrowed = narrow_until(model, _ladders(model), widths, limit, score)
    assert {name: int(width) for name, width in narrowed.items()} == {
        "x": 8,
        "w": 4,
        "r": 8,
        "v": 8,
    }
    low = {name: np.array(2) for name in model.specs}
    value = {"x": 0.0, "w": 0.0, "r": 0.0, "v": 1.0}
    limit = model.cost({**low, "v": np.array(4)})
    widened = widen_within(model, _ladders(model), low, limit, score, largest=8)
    assert int(widened["v"]) == 4


def test_nothing_left_that_fits_is_left_unspent() -> None:
    model = _model(Granularity.ELEMENT)
    low = {n: np.full(s.gate_shape, 2, dtype=np.int64) for n, s in model.specs.items()}
    limit = int(1.3 * model.cost(low))

    def score(upper: Widths, lower: Widths) -> dict[str, np.ndarray]:
        return {name: np.ones(array.shape) for name, array in upper.items()}

    widened = widen_within(model, _ladders(model), low, limit, score, largest=8)
    cheapest = min(
        float((slope * 2)[widened[name] == 2].min())
        for name, slope in model.marginal(widened).items()
        if (widened[name] == 2).any()
    )
    assert limit - cheapest < model.cost(widened) <= limit


def test_shifted_stays_on_the_ladder() -> None:
    ladders = Ladders({"a": (0, 2, 8), "b": (4,)})
    widths = {"a": np.array([0, 2, 8]), "b": np.array(4)}
    assert ladders.shifted(widths, -1)["a"].tolist() == [0, 0, 2]
    assert ladders.shifted(widths, +1)["a"].tolist() == [2, 8, 8]
    assert ladders.shifted(widths, +1, largest=2)["a"].tolist() == [2, 2, 8]
    assert int(ladders.shifted(widths, +1)["b"]) == 4


@pytest.mark.parametrize("granularity", list(Granularity))
def test_a_limit_at_the_minimum_is_reached(granularity: Granularity) -> None:
    model = _model(granularity)
    widths, weights = _random(model, 3)
    smallest, _ = model.minimum()
    narrowed = narrow_until(model, _ladders(model), widths, smallest, lambda u, _: weights)
    assert model.cost(narrowed) == smallest
