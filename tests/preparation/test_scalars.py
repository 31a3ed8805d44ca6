"""One element of shape [1] in place of a scalar, as some exporters write all scalars."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare

X = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
REAL, INTEGER = np.float32, np.int64

CASES = {
    "range": ("r = Range (a, b, c)  y = Add (h, r)", [REAL(0), REAL(8), REAL(1)]),
    "clip": ("y = Clip (h, a, b)", [REAL(-0.5), REAL(0.5)]),
    "window": ("r = HannWindow (a)  y = Mul (h, r)", [INTEGER(8)]),
    "mel": (
        "r = MelWeightMatrix (a, b, c, d, e)  y = MatMul (h, r)",
        [INTEGER(4), INTEGER(14), INTEGER(16000), REAL(0), REAL(8000)],
    ),
    "dft": (
        "u = Unsqueeze (h, last)  f = DFT <axis = 1> (u, a) y = ReduceSum <keepdims = 0> (f, last)",
        [INTEGER(8)],
    ),
    "loop": (
        "y = Loop (a, b, h) <body = g (int64 i, bool go, s) => (bool on, t) "
        "{ on = Identity (go) t = Tanh (s) }>",
        [INTEGER(2), np.bool_(True)],
    ),
    "dropout": ("y = Dropout (h, a, b)", [REAL(0.5), np.bool_(False)]),
    "axis": ("y = CumSum (h, a)", [INTEGER(1)]),
    "pad": ("y = Pad (h, pads, a)", [REAL(0.5)]),
    "diagonal": ("y = Trilu (h, a)", [INTEGER(1)]),
    "depth": ("i = ArgMax <axis = 1, keepdims = 0> (h)  y = OneHot (i, a, ends)", [INTEGER(8)]),
}


def model(name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    body, scalars = CASES[name]
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[2, 8] x) => (y)
        <int64[1] last = {{2}}, int64[4] pads = {{0, 1, 0, 1}}, float[2] ends = {{0, 1}}>
        {{ h = MatMul (x, w)  {body} }}"""
    )
    parsed.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    parsed.graph.initializer.append(numpy_helper.from_array(W, "w"))
    for letter, value in zip("abcde", scalars, strict=False):
        array = np.asarray(value).reshape(shape)
        parsed.graph.initializer.append(numpy_helper.from_array(array, letter))
    return parsed


@pytest.mark.parametrize("name", CASES)
def test_one_element_is_a_scalar(name) -> None:
    (expected,) = open_session(model(name, ()), threads=1).run(None, {"x": X})
    prepared = prepare(model(name, (1,)))
    (found,) = open_session(prepared, threads=1).run(None, {"x": X})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        mirrored = Mirror(prepared)({"x": torch.from_numpy(X)})["y"].numpy()
    assert mirrored.shape == expected.shape
    np.testing.assert_allclose(mirrored, expected, rtol=1e-5, atol=1e-5)
