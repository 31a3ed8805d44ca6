from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import Notice, Started
from onnx_cgmq.cost.float_partners import float_partner_notes, unbounded_tables
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.errors import BoundError
from onnx_cgmq.gating.insert import insert_gates

HIDDEN, INPUTS, STEPS = 6, 6, 5


def recurrent(op_type: str = "GRU", gates: int = 3) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, {STEPS}, {INPUTS}] x) => (float[n, {STEPS}, {HIDDEN}] y)
        <int64[1] one = {{1}}> {{
            t = Transpose <perm = [1, 0, 2]> (x)
            [cell] s = {op_type} <hidden_size = {HIDDEN}> (t, w, r)
            q = Squeeze (s, one)
            y = Transpose <perm = [1, 0, 2]> (q)
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, size in (("w", INPUTS), ("r", HIDDEN)):
        array = rng.normal(0, 0.4, (1, gates * HIDDEN, size)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def notes(bound: str, **settings) -> tuple[str, ...]:
    gated = insert_gates(recurrent(), **settings)
    return tuple(float_partner_notes(CostModel.of(gated), bound))


def test_a_bound_that_narrows_recurrent_weights_is_told() -> None:
    (note,) = notes("6.25%")
    assert note.startswith("'r' (GRU 'cell.state') may get few bits")
    assert "costs 12.5% of the float model's bit operations, and the bound is '6.25%'" in note


@pytest.mark.parametrize("bound", ["16%", "size:25%"])
def test_bounds_that_allow_8_bits_need_no_note(bound) -> None:
    assert notes(bound) == ()


def test_products_without_a_value_inside_need_no_note() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x) => (float[n, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }"""
    )
    assert not list(float_partner_notes(CostModel.of(insert_gates(model)), "1%"))
    with pytest.raises(BoundError):
        list(float_partner_notes(CostModel.of(insert_gates(model)), "many"))


def test_a_run_shows_the_note_before_it_trains() -> None:
    told = []
    x = np.random.default_rng(1).normal(size=(16, STEPS, INPUTS)).astype(np.float32)
    result = quantize(recurrent(), {"x": x}, "6.25%", epochs=1, progress=told.append)
    first = next(event for event in told if isinstance(event, Notice) and "GRU" in event.message)
    started = next(event for event in told if isinstance(event, Started))
    assert told.index(first) < told.index(started)
    assert result.plan.tensors["r"].mean_bits < 8


def _with_table() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (int64[n, 3] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}> { h = Gather (words, x)  y = MatMul (h, w) }"""
    )
    words = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(words, "words"))
    return model


@pytest.mark.parametrize(
    ("target", "bound", "is_told"),
    [
        ("generic", "6.25%", True),
        ("generic", ["6.25%", "size:50%"], False),
        ("onnxruntime", "6.25%", False),
    ],
)
def test_tables_that_no_bound_narrows_are_told(target, bound, is_told) -> None:
    costs = CostModel.of(insert_gates(_with_table(), target=target))
    found = list(unbounded_tables(costs, bound))
    assert len(found) == is_told
    assert all("tables 'words', so they stay at 32 bits (400 bytes as" in note for note in found)
