"""Movers behind quantized activations, in the main graph and in branches."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from onnx_cgmq.data import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.write_back import write_back

X = np.random.default_rng(0).normal(size=(8, 4, 6)).astype(np.float32)


def squeezed_in_a_branch() -> onnx.ModelProto:
    """Its branch squeezes what a Conv gives, as torch exports ``squeeze(-1)`` of open sizes."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 4, 6] x) => (float[n, k] y)
        <int64 axis = {2}, int64[1] last = {-1}, int64[1] two = {2}, int64[1] three = {3},
         int64[1] one = {1}> {
            [first] h = Conv (x, w)
            r = Relu (h)
            sizes = Shape (r)
            length = Slice (sizes, two, three)
            single = Equal (length, one)
            s = If (single) <then_branch = t () => (a) { a = Squeeze (r, last) },
                             else_branch = e () => (b) { b = Identity (r) }>
            flat = Flatten (s)
            [last] y = Gemm (flat, v)
        }"""
    )
    rng = np.random.default_rng(1)
    for name, shape in (("w", (5, 4, 6)), ("v", (5, 3))):
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def test_movers_in_branches_stay_in_their_branch() -> None:
    gated = insert_gates(squeezed_in_a_branch(), target="ort-cpu")
    mirror = Mirror(gated)
    calibrate(mirror, open_data({"x": X}, gated))
    written = write_back(gated, mirror.plan())
    with torch.no_grad():
        expected = mirror(torch.from_numpy(X))["y"].numpy()
    for optimize in (False, True):
        found = open_session(written, threads=1, optimize=optimize).run(None, {"x": X})[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
