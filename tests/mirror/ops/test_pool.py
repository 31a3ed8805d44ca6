from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse

X = "float[2,3,6,7] x"


def _image(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(dtype)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    ["", ", strides=[2,3], pads=[1,0,1,1]", ", dilations=[2,1], ceil_mode=1", ', auto_pad="VALID"'],
)
def test_lp_pool(attributes: str, p: int) -> None:
    body = f"y = LpPool<kernel_shape=[3,2], p={p}{attributes}>(x)"
    assert_like_onnxruntime(parse(X, "float[] y", body), {"x": _image()})


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool(p: int) -> None:
    for opset in (7, 21):
        model = parse(X, "float[] y", f"y = GlobalLpPool<p={p}>(x)", opset)
        assert_like_onnxruntime(model, {"x": _image()})


@pytest.mark.parametrize("body", ["y = LpPool<kernel_shape=[3,2]>(x)", "y = GlobalLpPool(x)"])
def test_gradients_are_finite_at_zero(body: str) -> None:
    x = torch.zeros(2, 3, 6, 7, requires_grad=True)
    Mirror(ir.from_proto(parse(X, "float[] y", body)))(x)["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    double = parse(X.replace("float", "double"), "double[] y", body)
    assert_gradients(double, {"x": _image(np.float64)}, fast=True)
