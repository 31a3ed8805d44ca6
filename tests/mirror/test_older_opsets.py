"""Operators as older opsets define them, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from onnx_cgmq.mirror import Mirror

CASES = [
    # opset, shape of x, body from x to y, rank of y
    (7, [2, 3, 4], "y = Softmax(x)"),
    (11, [2, 3, 4], "y = Softmax<axis=2>(x)"),
    (12, [2, 3, 4], "y = LogSoftmax<axis=-1>(x)"),
    (11, [2, 3, 4], "y = Hardmax<axis=1>(x)"),
    (7, [2, 3], "y = Clip<min=-0.5, max=0.25>(x)"),
    (10, [2, 3], "y = Clip<max=0.25>(x)"),
    (11, [2, 3], "m = Constant<value = float {-0.5}>() y = Clip(x, m)"),
    (9, [4, 5], "y = Slice<starts=[1,-3], ends=[9,-1], axes=[0,1]>(x)"),
    (9, [4, 5], "y = Slice<starts=[0,1], ends=[-1,1000]>(x)"),
    (7, [2, 1, 3], "y = Squeeze<axes=[1]>(x)"),
    (7, [2, 1, 1, 3], "y = Squeeze(x)"),
    (11, [2, 3], "y = Unsqueeze<axes=[0,-1]>(x)"),
    (8, [2, 3, 4], "y = ReduceSum<axes=[1], keepdims=0>(x)"),
    (12, [2, 3, 4], "y = ReduceMean<axes=[-1]>(x)"),
    (13, [2, 3, 4], "y = ReduceMax<axes=[0, 2], keepdims=0>(x)"),
    (13, [2, 3, 4], "y = ReduceL2(x)"),
    (7, [2, 6], "y, z = Split<axis=1, split=[2,4]>(x)"),
    (11, [2, 6], "y, z = Split<axis=1>(x)"),
    (7, [2, 3], "y = Pad<pads=[0,1,2,0], value=1.5>(x)"),
    (10, [2, 5], 'y = Pad<mode="reflect", pads=[0,2,0,1]>(x)'),
    (10, [2, 5], 'y = Pad<mode="edge", pads=[1,2,0,1]>(x)'),
    (9, [3, 5], "y, i = TopK<k=2, axis=1>(x)"),
    (7, [2, 3], "y = Dropout<ratio=0.5>(x)"),
    (10, [2, 3], "y, m = Dropout(x)"),
    (7, [1, 2, 7, 7], "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,0,0,1]>(x)"),
    (10, [1, 2, 7, 7], 'y = AveragePool<kernel_shape=[2,2], auto_pad="SAME_LOWER">(x)'),
    (7, [2, 3, 4], "y = Flatten<axis=2>(x)"),
    (7, [2, 3], "y = ArgMax<axis=1>(x)"),
]


def _model(opset: int, shape: list[int], body: str) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["": {opset}]>
    g (float{shape} x) => (y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize(("opset", "shape", "body"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_same_as_onnxruntime(opset: int, shape: list[int], body: str) -> None:
    model = _model(opset, shape, body)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": x})
    got = Mirror(ir.from_proto(model))(torch.from_numpy(x))["y"].detach().numpy()
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
