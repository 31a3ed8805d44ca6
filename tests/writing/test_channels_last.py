"""One pixel is flattened with channels last: the same values, and fast pooling before it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.channels_last import flatten_channels_last
from tests.support.referee import optimized_operators

FLATTENED = ["y = Flatten(p)", "y = Reshape(p, shape)", "y = Reshape(p, keep)", "y = Squeeze(p, a)"]


def _model(pool: str, flatten: str) -> ir.Model:
    """A convolution in integers, pooling, and what flattens it, on codes."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (uint8[n,4,8,8] c) => (y)
    <float s = {{0.05}}, uint8 z = {{100}}, float t = {{0.5}}, int64[2] shape = {{-1, 8}},
     int64[2] keep = {{0, -1}}, int64[2] a = {{2, -1}}, int8 zw = {{0}}>
    {{
        x = DequantizeLinear(c, s, z)
        w = DequantizeLinear(k, s, zw)
        h = Conv(x, w)
        q = QuantizeLinear(h, t, z)
        {pool}
        {flatten}
    }}"""
    proto = onnx.parser.parse_model(text)
    kernel = np.random.default_rng(0).integers(-100, 100, (8, 4, 3, 3)).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "k"))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


GLOBAL = "d = DequantizeLinear(q, t, z) g = GlobalAveragePool(d) p = QuantizeLinear(g, t, z)"


@pytest.mark.parametrize("flatten", FLATTENED)
def test_the_values_stay(flatten: str) -> None:
    model = _model(GLOBAL, flatten)
    before = ir.to_proto(model)
    flatten_channels_last(model.graph)
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    assert [node.op_type for node in after.graph.node].count("Transpose") == 1
    codes = np.random.default_rng(1).integers(0, 256, (3, 4, 8, 8)).astype(np.uint8)
    results = [open_session(m, optimize=False).run(None, {"c": codes})[0] for m in (before, after)]
    np.testing.assert_array_equal(*results)


def test_onnxruntime_pools_with_channels_last(tmp_path) -> None:
    pool = f"m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(q) {GLOBAL.replace('(q', '(m')}"
    model = _model(pool, FLATTENED[0])
    flatten_channels_last(model.graph)
    kernels = optimized_operators(model, tmp_path)
    assert "NhwcMaxPool" in kernels
    assert kernels.count("Transpose") == 1


@pytest.mark.parametrize(
    ("pool", "flatten"),
    [
        ("p = MaxPool<kernel_shape=[2,2]>(q)", "y = Flatten(p)"),  # more than one pixel
        (GLOBAL, "y = Flatten<axis=2>(p)"),
        (GLOBAL.replace("p = QuantizeLinear(g, t, z)", "p = Relu(g)"), "y = Flatten(p)"),  # floats
    ],
)
def test_all_else_stays(pool: str, flatten: str) -> None:
    model = _model(pool, flatten)
    flatten_channels_last(model.graph)
    assert "Transpose" not in [node.op_type for node in model.graph]
