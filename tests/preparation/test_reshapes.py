"""A computed shape with one open size becomes a constant."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.reshapes import fix_reshapes


def _model(signature: str, body: str) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["": 21]> g ({signature}) => (y)
    <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] size = {{12}}, int64[1] rest = {{-1}}>
    {{ {body} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    infer_shapes(model)
    return model


COMPUTED = "s = Shape(x) b = Slice(s, zero, one) t = Concat<axis=0>(b, size) y = Reshape(x, t)"


def test_a_computed_shape_with_one_open_size_becomes_constant() -> None:
    model = _model("float[n,3,4] x", COMPUTED)
    before = ir.to_proto(model)
    fix_reshapes(model)
    after = ir.to_proto(model)
    shape = next(node for node in model.graph if node.op_type == "Reshape").inputs[1].const_value
    assert shape is not None
    assert shape.numpy().tolist() == [-1, 12]
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    results = [open_session(m).run(None, {"x": x})[0] for m in (before, after)]
    np.testing.assert_array_equal(*results)
    assert [value.name for value in after.graph.output] == ["y"]


def test_a_computed_shape_with_two_open_sizes_stays() -> None:
    model = _model(
        "float[n,m,12] x",
        "s = Shape(x) b = Slice(s, zero, one) t = Concat<axis=0>(b, rest, size) y = Reshape(x, t)",
    )
    fix_reshapes(model)
    assert "Constant" not in [node.op_type for node in model.graph]


def test_a_constant_shape_stays() -> None:
    model = _model("float[n,3,4] x", "t = Concat<axis=0>(rest, size) y = Reshape(x, size)")
    fix_reshapes(model)
    assert "Constant" not in [node.op_type for node in model.graph]
