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

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype(np.float32)
W = RNG.normal(size=(4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "added"),
    [
        ("n, 4", "Add (m, x)"),
        ("8, 4", "Add (x, m)"),
        ("n, 4", "Add (m, banned)"),
        ("n, 4", "Add (m, mean)"),
        ("4, 2, 4", "Add (m, mean)"),
        ("4, 2, 4", "Add (m, x)"),
    ],
)
def test_an_add_leaves_the_product_in_integers(shape, added) -> None:
    axes = "0, 1" if shape.count(",") == 2 else "0"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[{shape}] x) => (float[{shape}] y)
        <int64[{axes.count(",") + 1}] axes = {{{axes}}}>
        {{ [product] m = MatMul (x, w)
           mean = ReduceMean <keepdims = 0> (x, axes)
           a = {added}  y = Exp (a) }}"""
    )
    banned = np.array([0, -np.inf, 1, 2], np.float32)  # no part of the product: it is not finite
    for name, array in (("w", W), ("banned", banned)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    gated = insert_gates(model, widths=(8,))
    mirror = Mirror(gated)
    x = X if shape.count(",") == 1 else X.reshape(4, 2, 4)
    calibrate(mirror, open_data({"x": x}, gated))
    written = write(gated, mirror.plan(), compact=False)
    (node,) = (node for node in written.model.graph if node.op_type == "MatMul")
    assert written.kernels[str(node.name)].kernel is Kernel.INTEGER
    assert computes_on_codes(executed_operators(written.model)[node_key(node)])
    (expected,) = open_session(mirror.to_model(), threads=1, optimize=False).run(None, {"x": x})
    for optimize in (False, True):
        (found,) = open_session(written.model, threads=1, optimize=optimize).run(None, {"x": x})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
