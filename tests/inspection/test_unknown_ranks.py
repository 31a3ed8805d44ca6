"""Files in which neither inference nor a declaration tells the number of axes of an operand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq.errors import ModelError
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort import probe

COMPUTED = """
    sizes = Shape (x)
    outer = Slice (sizes, zero, two)
    rows = ReduceProd <keepdims = 1> (outer)
    shape = Concat <axis = 0> (rows, four)
    flat = Reshape (x, shape)
    QUANTIZED
    y = MatMul (f, w)
"""

QUANTIZED = """
    c = QuantizeLinear (flat, step, nothing)
    f = DequantizeLinear (c, step, nothing)
"""


def parse(body: str, x: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]> g ({x}) => (float y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}},
         float step = {{0.5}}, uint8 nothing = {{0}}> {{ {body} }}"""
    )


def with_weight(model: onnx.ModelProto, name: str, *shape: int) -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return model


@pytest.mark.parametrize(("quantized", "bits"), [("f = Identity (flat)", 32), (QUANTIZED, 8)])
def test_a_computed_reshape(quantized, bits) -> None:
    body = COMPUTED.replace("QUANTIZED", quantized)
    report = inspect(with_weight(parse(body, "float[2, 3, 4] x"), "w", 4, 5))
    (node,) = report.nodes
    assert (node.macs, node.bits) == (2 * 3 * 4 * 5 // 2, (bits, 32))


def test_a_computed_reshape_of_open_sizes() -> None:
    model = with_weight(
        parse(COMPUTED.replace("QUANTIZED", QUANTIZED), "float[n, m, 4] x"), "w", 4, 5
    )
    report = inspect(model)
    assert report.macs == 4 * 5
    assert any("count as 1 unless --shape" in note for note in report.notes)
    assert inspect(model, {"x": (1, 7, 4)}).macs == 7 * 4 * 5


BRANCHES = """
    sizes = Shape (x)
    last = Slice (sizes, one, two)
    many = Greater (last, four)
    r = If (many) <then_branch = t () => (a) { a = Unsqueeze (x, zero) },
                   else_branch = e () => (b) { b = Identity (x) }>
    many_scalar = Squeeze (many)
    y = If (many_scalar) <
        then_branch = f () => (c) { c, h, s = LSTM <hidden_size = 2> (r, w, v) },
        else_branch = g () => (d) { d = Identity (x) }>
"""


def test_a_recurrent_operator_behind_branches_of_different_ranks() -> None:
    model = parse(BRANCHES, "float[k, n] x")
    with_weight(with_weight(model, "w", 1, 8, 6), "v", 1, 8, 2)
    report = inspect(model)
    assert {node.name: node.macs for node in report.nodes} == {"c": 8 * 6, "c.state": 8 * 2}
    assert any("count as 1 unless --shape" in note for note in report.notes)


def test_channels_follow_from_the_weights() -> None:
    body = COMPUTED.replace("QUANTIZED", "f = Identity (flat)").replace(
        "MatMul", "Conv <group = 2>"
    )
    model = parse(body.replace("(rows, four)", "(one, rows, four, four)"), "float[n, m, 4] x")
    with_weight(model, "w", 6, 2, 1, 1)
    assert inspect(model).macs == 6 * 2 * 4 * 4


def test_a_run_that_does_not_end(monkeypatch) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 0.2)
    body = """
        forever = Loop (, yes, x) <body = h (int64 i, bool c, s) => (bool d, t) {
            d = Identity (c)
            t = Identity (s)
        }>
        flat = Unsqueeze (forever, zero)
        y = MatMul (flat, w)
    """
    model = with_weight(parse(body, "float[2, 4] x"), "w", 4, 5)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    with pytest.raises(ModelError, match=r"rank of its input 'flat' is unknown; give shapes"):
        inspect(model)
