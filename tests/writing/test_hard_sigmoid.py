"""HardSigmoid between codes is an integer Add with the same codes, or stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.hard_sigmoid import write_hard_sigmoids
from tests.support.referee import optimized_operators

ALL_CODES = np.arange(256, dtype=np.uint8).reshape(1, 256)


def _model(step, zero_point, alpha, beta, out_step, body="") -> onnx.ModelProto:
    body = body or "q = QuantizeLinear(h, t, z) y = Identity(q)"
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (uint8[n,256] c) => (y)
    {{ x = DequantizeLinear(c, s, zx) h = HardSigmoid<alpha = {alpha!r}, beta = {beta!r}>(x)
    {body} }}"""
    model = onnx.parser.parse_model(text)
    constants = {
        "s": np.float32(step),
        "zx": np.uint8(zero_point),
        "t": np.float32(out_step),
        "z": np.uint8(0),
    }
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(array), name))
    return onnx.shape_inference.infer_shapes(model)


def _written(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    write_hard_sigmoids(model.graph)
    RemoveUnusedNodesPass()(model)
    onnx.checker.check_model(ir.to_proto(model))
    return model


def _codes(model, optimize=False) -> np.ndarray:
    return open_session(model, optimize=optimize).run(None, {"c": ALL_CODES})[0]


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    step=st.floats(1e-3, 0.2),
    zero_point=st.integers(0, 255),
    alpha=st.floats(0.05, 1.0),
    beta=st.floats(-0.5, 1.5),
    out_step=st.floats(0.5 / 255, 2 / 255),
)
def test_the_codes_stay_the_same(step, zero_point, alpha, beta, out_step) -> None:
    proto = _model(step, zero_point, alpha, beta, out_step)
    np.testing.assert_array_equal(_codes(_written(proto)), _codes(proto))


@pytest.mark.parametrize(
    ("out_step", "kernels"), [(1 / 255, ["QLinearAdd"]), (1 / 200, ["QLinearAdd", "Clip"])]
)
def test_onnxruntime_adds_integers(out_step, kernels, tmp_path) -> None:
    proto = _model(0.05, 100, 1 / 6, 0.5, out_step)
    written = _written(proto)
    assert optimized_operators(written, tmp_path) == kernels
    apart = _codes(written, optimize=True).astype(int) - _codes(proto).astype(int)
    assert np.abs(apart).max() <= 1
    assert (apart != 0).mean() < 0.02


@pytest.mark.parametrize(
    "model",
    [
        _model(0.05, 100, -0.2, 0.5, 1 / 255),  # a negative scale would be needed
        _model(0.05, 100, 0.2, 0.0, 1 / 255),  # nothing to add
        _model(0.05, 100, 0.2, 0.5, 1 / 255, "a = Add(h, h) y = QuantizeLinear(a, t, z)"),
        _model(0.05, 100, 0.2, 0.5, 1 / 255, "q = QuantizeLinear(h, t, z) y = Identity(h)"),
    ],
)
def test_what_is_not_such_an_add_stays(model) -> None:
    assert "HardSigmoid" in [node.op_type for node in _written(model).graph]
