from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq import prepare
from onnx_cgmq.ort.session import open_session

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def model_of(call: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]> g (float[n,3] x) => (float[n,4] y)
        {{ [gemm] z = Gemm {call}  u = MatMul (x, w)  y = Add (z, u) }}"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w", (3, 4)), ("v", (4, 3)), ("c", (4,)), ("s", ())):
        array = np.asarray(rng.normal(size=shape), np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.mark.parametrize(
    "call",
    [
        "<alpha = 0.5> (x, w, c)",
        "<beta = 2.0> (x, w, c)",
        "<alpha = 0.5, beta = -2.0> (x, w, c)",
        "<alpha = 3.0, beta = 0.0, transB = 1> (x, v, c)",
        "<alpha = 0.5, beta = 2.0> (x, w)",
        "<beta = 0.5> (x, w, s)",
    ],
)
def test_factors_become_part_of_constants(call) -> None:
    """The weight ``w`` is read by another node too, which must not see the factor."""
    before = model_of(call)
    after = prepare(before)
    gemms = [node for node in after.graph if node.op_type == "Gemm"]
    assert not any({"alpha", "beta"} & set(node.attributes) for node in gemms)
    (wanted,), (found,) = (open_session(m).run(None, {"x": X}) for m in (before, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_factor_without_a_constant_stays() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 21]> g (float[4,3] x, float[3,4] t) => (float[4,4] y)
        { [gemm] y = Gemm <alpha = 0.5> (x, t) }"""
    )
    (node,) = prepare(model).graph
    assert node.attributes["alpha"].as_float() == 0.5
