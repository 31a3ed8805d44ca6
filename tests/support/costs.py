"""Tiny graphs with all kinds of cost, and tables for them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import helper

from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from onnx_cgmq.settings.cost_table import CostTable
from tests.support.toys import convnet, make_model, mlp

LADDER = (2, 4, 8, 16, 32)


def residual() -> ir.Model:
    """Two convolutions and a residual Add around the second: an activation that two nodes read."""
    rng = np.random.default_rng(1)
    weights = {"k1": rng.normal(size=(3, 1, 3, 3)), "k2": rng.normal(size=(3, 3, 3, 3))}
    weights["w"] = rng.normal(size=(48, 3))
    pads = {"pads": [1] * 4}
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["h1"], name="conv1", **pads),
        helper.make_node("Relu", ["h1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "k2"], ["h2"], name="conv2", **pads),
        helper.make_node("Add", ["h2", "r1"], ["s"], name="add"),
        helper.make_node("Flatten", ["s"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="last"),
    ]
    return make_model(nodes, weights, [1, 4, 4])


def product_of_activations() -> ir.Model:
    """Two projections of the input, multiplied with each other."""
    rng = np.random.default_rng(2)
    weights = {"q": rng.normal(size=(4, 3)), "k": rng.normal(size=(4, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["a"], name="query"),
        helper.make_node("MatMul", ["x", "k"], ["b"], name="key"),
        helper.make_node("Transpose", ["b"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["y"], name="product"),
    ]
    return make_model(nodes, weights, [3, 4], outputs={"y": ["n", 3, 3]})


GRAPHS = {"mlp": mlp, "convnet": convnet, "residual": residual, "product": product_of_activations}
_PREPARED: dict[str, ir.Model] = {}


def gated(graph: str, **settings) -> ir.Model:
    """One of the graphs with gates, by default for the target ``generic``."""
    if graph not in _PREPARED:
        _PREPARED[graph] = prepare(GRAPHS[graph]())
    return insert_gates(_PREPARED[graph], Config.create(**{"target": "generic", **settings}))


def random_widths(model: CostModel, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.choice(spec.ladder.widths, spec.gate_shape), dtype=np.int64)
        for name, spec in model.specs.items()
    }


def product_table() -> CostTable:
    """Bits times bits, as bit operations count."""
    rows = {str(i): [i * j for j in LADDER] for i in LADDER}
    return CostTable(unit="BOP", float=1024, activations=LADDER, weights=rows)


@st.composite
def tables(draw) -> CostTable:
    """Monotone tables, flat in places, with decimals."""
    steps = st.integers(0, 3)
    columns, rows, before = LADDER[:4], {}, [draw(st.integers(1, 3))] * 4
    for width in LADDER[:4]:
        row = []
        for index in range(4):
            least = max(before[index], row[-1] if row else 0)
            row.append(least + draw(steps))
        rows[width], before = row, row
    last = max(before) + draw(steps)
    scale = draw(st.sampled_from([1, Fraction(1, 10), Fraction(1, 7)]))
    return CostTable(
        unit="pJ",
        float=last * scale,
        activations=columns,
        weights={width: [cost * scale for cost in row] for width, row in rows.items()},
    )
