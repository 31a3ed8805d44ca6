"""Few samples run at once where values are large; weights do not count."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.ort import batch_size
from onnx_cgmq.ort.batch_size import samples_at_once


def _model(graph: str) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g {graph}'
    model = onnx.parser.parse_model(text)
    weight = np.ones((4, 100), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return ir.from_proto(model)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("(float[n, 4] x) => (float[n, 100] y) { y = MatMul (x, w) }", 5),
        ("(float[2, 4] x) => (float[2, 100] y) { y = MatMul (x, w) }", 5),
        ("(float[n, 400] x) => (float[n, 400] y) { y = Relu (x) }", 1),
        ("(float[n, 4] x) => (float[n, 4] y) { b = ReduceSum (w)  y = Add (x, b) }", 32),
        (
            "(float[n, 4] x) => (float[n, 1] y) { v = Neg (w)  a = ReduceMax (v)  y = Add (x, a) }",
            32,
        ),
        ("(float[n, t] x) => (float[n, t] y) { y = Relu (x) }", 8),
        ("(float[n, 4] x) => (int64[2, m] y) { y = NonZero (x) }", 8),
    ],
)
def test_the_largest_value_of_a_sample_decides(graph, expected, monkeypatch) -> None:
    monkeypatch.setattr(batch_size, "_LARGEST_BYTES", 5 * 100 * 4)
    assert samples_at_once(_model(graph), 32) == expected
