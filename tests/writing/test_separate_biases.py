from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq import insert_gates, write_back
from onnx_cgmq.data import open_data
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.session import open_session

X = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)


def written(batch: str, add: str) -> onnx.ModelProto:
    """Two layers on three axes, weights at 2 bits, where steps are coarse."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]>
        g (float[{batch},6,4] x) => (float[{batch},6,4] y)
        {{ m = MatMul (x, w1)  a = Add ({add})  r = Gelu (a)  y = MatMul (r, w2) }}"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w1", (4, 4)), ("w2", (4, 4)), ("b", (4,))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    gated = insert_gates(model, widths=(2, 8))
    mirror = Mirror(gated)
    for quantizer in mirror.quantizers.values():
        quantizer.set_gate(quantizer.gate_for(np.array(2)))
    calibrate(mirror, open_data({"x": X}, gated))
    return write_back(gated, mirror.plan())


@pytest.mark.parametrize("add", ["m, b", "b, m"])
@pytest.mark.parametrize("batch", ["n", "8"])
def test_optimizations_do_not_round_a_float_bias(batch, add) -> None:
    model = written(batch, add)
    plain, optimized = (
        open_session(model, threads=1, optimize=on).run(None, {"x": X})[0] for on in (False, True)
    )
    assert np.abs(plain).max() > 0
    np.testing.assert_allclose(optimized, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
