from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize(
    ("sizes", "window"),
    [
        ([7], "kernel_shape=[3], strides=[2]"),
        ([6, 9], "kernel_shape=[2,3], strides=[2,3]"),
        ([5, 6], "kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]"),
        ([4, 4, 5], "kernel_shape=[2,2,3], strides=[2,2,2]"),
    ],
)
def test_max_unpool_undoes_max_pool(sizes: list[int], window: str, opset: int) -> None:
    shape = [2, 3, *sizes]
    body = f"p, i = MaxPool<{window}>(x) y = MaxUnpool<{window}>(p, i)"
    model = parse(f"float{shape} x", "float[] y", body, opset)
    assert_like_onnxruntime(model, {"x": _numbers(*shape)})
    body = f"p, i = MaxPool<{window}>(x) s = Shape(x) y = MaxUnpool<{window}>(p, i, s)"
    assert_like_onnxruntime(
        parse(f"float{shape} x", "float[] y", body, opset), {"x": _numbers(*shape)}
    )


def test_max_unpool_into_a_larger_shape() -> None:
    """As in the standard's case; onnxruntime counts indices in the larger shape."""
    signature = "float[1,1,2,2] x, int64[1,1,2,2] i, int64[4] s"
    body = "y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i, s)"
    feeds = {
        "x": _numbers(1, 1, 2, 2),
        "i": np.array([[[[5, 7], [13, 15]]]]),
        "s": np.array([1, 1, 5, 6]),
    }
    model = parse(signature, "float[] y", body, 11)
    expected = ReferenceEvaluator(model).run(None, feeds)[0]
    np.testing.assert_array_equal(run_mirror(model, feeds)[0], expected)


def test_gradient_of_max_unpool() -> None:
    body = "y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i)"
    model = parse("double[1,1,2,2] x, int64[1,1,2,2] i", "double[] y", body, 11)
    feeds = {"x": np.arange(4.0).reshape(1, 1, 2, 2), "i": np.array([[[[5, 7], [13, 15]]]])}
    assert_gradients(model, feeds)


def _columns(
    sizes: list[int],
    block: list[int],
    attributes: dict[str, list[int]],
    kind: str = "float",
    planes=(2, 3),
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    rank = len(sizes)
    ones = [1] * rank
    pads, strides = attributes.get("pads", ones * 2), attributes.get("strides", ones)
    dilations = attributes.get("dilations", ones)
    attributes = {"pads": pads, "strides": strides, "dilations": dilations}
    count = math.prod(
        (sizes[i] + pads[i] + pads[i + rank] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    )
    x = (_numbers(planes[0], planes[1] * math.prod(block), count) * 9).astype(
        {"float": np.float32}.get(kind, kind)
    )
    signature = f"{kind}{list(x.shape)} x, int64[{rank}] i, int64[{rank}] b"
    text = ", ".join(f"{name}={value}" for name, value in attributes.items())
    model = parse(signature, f"{kind}[] y", f"y = Col2Im<{text}>(x, i, b)", 18)
    return model, {"x": x, "i": np.array(sizes), "b": np.array(block)}


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [0, 2, 1, 0]},
        {"strides": [2, 1]},
        {"dilations": [1, 2], "strides": [1, 2], "pads": [1, 0, 0, 1]},
    ],
)
def test_col2im(attributes: dict[str, list[int]]) -> None:
    assert_like_onnxruntime(*_columns([5, 6], [2, 3], attributes))


@pytest.mark.parametrize(
    ("sizes", "block", "attributes"),
    [
        ([5], [2], {}),
        ([6], [3], {"strides": [2], "pads": [1, 0]}),
        ([4, 5, 3], [2, 1, 3], {}),
        ([4, 5, 3], [2, 3, 1], {"strides": [1, 2, 1], "pads": [1, 0, 2, 0, 1, 0]}),
    ],
)
@pytest.mark.parametrize("kind", ["float", "int32"])
def test_col2im_of_other_ranks_and_types(
    sizes: list[int], block: list[int], attributes: dict[str, list[int]], kind: str
) -> None:
    """Against the standard's reference: onnxruntime mixes up blocks in three dimensions."""
    model, feeds = _columns(sizes, block, attributes, kind)
    expected = ReferenceEvaluator(model).run(None, feeds)[0]
    torch.testing.assert_close(run_mirror(model, feeds)[0], torch.from_numpy(expected))


@pytest.mark.parametrize("sizes", [[4], [3, 4], [2, 3, 2]])
def test_gradient_of_col2im(sizes: list[int]) -> None:
    model, feeds = _columns(
        sizes, [2] * len(sizes), {"pads": [0] * 2 * len(sizes)}, "double", (1, 1)
    )
    feeds["x"] = feeds["x"].astype(np.float64)
    assert_gradients(model, feeds)
