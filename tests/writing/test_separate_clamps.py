from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq import insert_gates
from onnx_cgmq.data import open_data
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import computes_on_codes
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.write_back import write

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@pytest.mark.parametrize("product", ["MatMul (x, w)", "Gemm (x, w, b)"])
@pytest.mark.parametrize(
    "clamp", ["Relu (m)", "Clip (m, low)", "Clip (m, , high)", "Clip (m, low, high)"]
)
def test_a_clamp_before_a_float_operator_leaves_the_product_in_integers(product, clamp) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]> g (float[n,4] x) => (float[n,3] y)
        <float low = {{-0.5}}, float high = {{0.75}}>
        {{ [product] m = {product}  c = {clamp}  y = Exp (c) }}"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w", (4, 3)), ("b", (3,))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    gated = insert_gates(model, widths=(8,))
    mirror = Mirror(gated)
    calibrate(mirror, open_data({"x": X}, gated))
    written = write(gated, mirror.plan(), compact=False)
    (node,) = (node for node in written.model.graph if node.op_type in ("Gemm", "MatMul"))
    assert written.kernels[str(node.name)].kernel is Kernel.INTEGER
    assert computes_on_codes(executed_operators(written.model)[node_key(node)])
    (expected,) = open_session(mirror.to_model(), threads=1, optimize=False).run(None, {"x": X})
    for optimize in (False, True):
        (found,) = open_session(written.model, threads=1, optimize=optimize).run(None, {"x": X})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
