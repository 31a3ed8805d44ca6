from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.errors import ModelError
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

Attributes = dict[str, Any]

ATTRIBUTES: list[Attributes] = [
    {},
    {"pads": [1, 0, 2, 1]},
    {"strides": [2, 1], "dilations": [1, 2]},
    {"group": 2},
    {"offset_group": 2},
    {"group": 2, "offset_group": 4, "pads": [1, 1, 1, 1]},
]


def _case(
    attributes: Attributes, inputs: str, dtype: type = np.float32, sizes: tuple[int, int] = (5, 6)
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A node with 4 channels, a 2x3 kernel and offsets of some pixels."""
    pads, strides = attributes.get("pads", [0] * 4), attributes.get("strides", [1, 1])
    reach = [d * (k - 1) for d, k in zip(attributes.get("dilations", [1, 1]), (2, 3), strict=True)]
    output = [
        (n + pads[i] + pads[i + 2] - reach[i] - 1) // strides[i] + 1 for i, n in enumerate(sizes)
    ]
    taps = attributes.get("offset_group", 1) * 6
    shapes = {
        "x": (2, 4, *sizes),
        "w": (4, 4 // attributes.get("group", 1), 2, 3),
        "o": (2, 2 * taps, *output),
        "b": (4,),
        "m": (2, taps, *output),
    }
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in shapes.items()
        if name in inputs.split(",")
    }
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    signature = ", ".join(
        f"{kind}[{','.join(map(str, array.shape))}] {name}" for name, array in feeds.items()
    )
    attributes = {"kernel_shape": [2, 3], **attributes}
    text = ", ".join(f"{name}={value}" for name, value in attributes.items())
    return parse(signature, f"{kind}[] y", f"y = DeformConv<{text}>({inputs})", 19), feeds


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("inputs", ["x,w,o", "x,w,o,,m", "x,w,o,b,m"])
def test_deform_conv(attributes: Attributes, inputs: str) -> None:
    assert_like_onnxruntime(*_case(attributes, inputs))


@pytest.mark.parametrize("shape", [(2, 4, 7), (1, 2, 4, 5, 4)])
def test_without_offsets_it_is_a_convolution(shape: tuple[int, ...]) -> None:
    rng, rank = np.random.default_rng(0), len(shape) - 2
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((6, shape[1], *(2,) * rank)).astype(np.float32)
    zeros = np.zeros((shape[0], rank * 2**rank, *(n + 1 for n in shape[2:])), np.float32)
    pads = [1] * (2 * rank)
    sizes = [",".join(map(str, array.shape)) for array in (x, w, zeros)]
    signature = f"float[{sizes[0]}] x, float[{sizes[1]}] w, float[{sizes[2]}] o"
    body = f"y = DeformConv<pads={pads}>(x, w, o) z = Conv<pads={pads}>(x, w)"
    outputs = run_mirror(
        parse(signature, "float[] y, float[] z", body), {"x": x, "w": w, "o": zeros}
    )
    torch.testing.assert_close(*outputs)


def test_gradients() -> None:
    model, feeds = _case({"group": 2, "offset_group": 2}, "x,w,o,b,m", np.float64)
    assert_gradients(model, feeds, fast=True)


def test_offsets_of_another_size_are_refused() -> None:
    model, feeds = _case({}, "x,w,o")
    feeds["o"] = feeds["o"][..., :-1]
    with pytest.raises(ModelError, match="offsets for"):
        run_mirror(model, feeds)
