"""onnxruntime has kernels on codes that round otherwise than floats: none of them may run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq import insert_gates, write_back
from onnx_cgmq.data import open_data
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.ort.session import open_session

X = np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "between", ["Softmax <axis = 1> (c)", 'Resize <mode = "linear"> (c, , scales)']
)
def test_optimizations_leave_codes_as_they_are(between) -> None:
    """Two readers each, so that a quantizer stands before the operator and one behind it."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]> g (float[n,3,6,6] x) => (float y, float z)
        <float[4] scales = {{1.0, 1.0, 2.0, 2.0}}>
        {{ c = Conv (x, w1)  s = {between}  y = Conv (s, w2)  z = Conv (c, w2) }}"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w1", (4, 3, 3, 3)), ("w2", (2, 4, 1, 1))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    gated = insert_gates(model, widths=(4, 8))
    mirror = Mirror(gated)
    mirror.quantizers["s"].set_gate(mirror.quantizers["s"].gate_for(np.array(4)))
    calibrate(mirror, open_data({"x": X}, gated))
    written = write_back(gated, mirror.plan(), compact=False)
    assert "QLinearSoftmax" not in executed_operators(written).values()
    plain, optimized = (
        open_session(written, threads=1, optimize=on).run(["y", "z"], {"x": X})
        for on in (False, True)
    )
    for a, b in zip(plain, optimized, strict=True):
        assert (np.abs(a - b) <= 1e-4 * np.abs(a).max()).mean() > 0.999
