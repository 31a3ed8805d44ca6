"""Values halfway between two codes may round to either, and nothing else may differ."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_cgmq.data import open_data
from onnx_cgmq.ort.session import open_session
from tools.fuzz.ties import differ_by_ties

ADD = "y0 = Add(x2, x2)"
SOFTMAX = "y0 = Softmax(x2)"


def between_quantizers(node: str, scale: float, zero_point: int) -> ir.Model:
    """A node between quantizers, so that onnxruntime runs it on codes; of x the step is 1."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]> g (float[n, 8] x) => (float[n, 8] y) {{
            x1 = QuantizeLinear(x, one, middle) x2 = DequantizeLinear(x1, one, middle)
            {node}
            y1 = QuantizeLinear(y0, s, z) y = DequantizeLinear(y1, s, z)
        }}"""
    )
    constants = {
        "one": np.float32(1),
        "middle": np.uint8(128),
        "s": np.float32(scale),
        "z": np.uint8(zero_point),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value), name) for name, value in constants.items()
    )
    return ir.from_proto(model)


@pytest.mark.parametrize(
    ("node", "scale", "zero_point", "differs", "ties"),
    [
        (ADD, 4.0, 1, True, True),
        (ADD, 4.0, 2, False, True),
        (SOFTMAX, 1 / 4096, 0, True, False),
    ],
)
def test_only_ties_are_ties(node, scale, zero_point, differs, ties) -> None:
    model = between_quantizers(node, scale, zero_point)
    x = np.random.default_rng(0).integers(0, 9, (16, 8)).astype(np.float32)
    plain, optimized = (
        open_session(model, threads=1, optimize=on).run(None, {"x": x})[0] for on in (False, True)
    )
    assert bool(np.any(plain != optimized)) is differs
    assert differ_by_ties(model, open_data({"x": x}, model).batches(16)) is ties
