"""Convolutions and pools with every kind of padding, against onnxruntime."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from onnx_cgmq.errors import ModelError, UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror

PADDINGS = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 2, 1, 0]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
]
STRIDES = [[1, 1], [2, 3]]
SETTINGS = list(itertools.product(PADDINGS, STRIDES))
SIZES = [(7, 8), (10, 9)]


def _model(op_type: str, inputs: dict[str, np.ndarray], outputs: int = 1, **attributes):
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, list(inputs), names, name="n", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in inputs.items()],
        [
            helper.make_tensor_value_info(n, t, None)
            for n, t in zip(names, (TensorProto.FLOAT, TensorProto.INT64), strict=False)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _compare(op_type: str, inputs: dict[str, np.ndarray], outputs: int = 1, **attributes) -> None:
    model = _model(op_type, inputs, outputs, **attributes)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, inputs)
    got = Mirror(ir.from_proto(model))(
        {name: torch.from_numpy(array) for name, array in inputs.items()}
    )
    for wanted, y in zip(expected, got.values(), strict=True):
        np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-4, atol=1e-5)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("padding", "strides"), SETTINGS)
@pytest.mark.parametrize("group", [1, 2])
def test_conv(padding: dict[str, object], strides: list[int], group: int) -> None:
    for size in SIZES:
        inputs = {"x": _random(2, 4, *size), "w": _random(6, 4 // group, 3, 2), "b": _random(6)}
        _compare("Conv", inputs, strides=strides, group=group, **padding)


@pytest.mark.parametrize("padding", [p for p in PADDINGS if "auto_pad" not in p])
def test_dilated_conv(padding: dict[str, object]) -> None:
    inputs = {"x": _random(2, 3, 9, 9), "w": _random(4, 3, 3, 3)}
    _compare("Conv", inputs, dilations=[2, 1], **padding)


@pytest.mark.parametrize("padding", [*PADDINGS, {"pads": [2, 0, 1, 3]}])
def test_strided_conv_with_one_tap(padding: dict[str, object]) -> None:
    for size in SIZES:
        inputs = {"x": _random(2, 2, *size), "w": _random(4, 2, 1, 1), "b": _random(4)}
        _compare("Conv", inputs, strides=[2, 3], **padding)


def test_weight_gradient_of_a_strided_conv_with_one_tap() -> None:
    """With few channels oneDNN's own writes past its buffer."""
    x, w = torch.from_numpy(_random(64, 2, 6, 6)), torch.from_numpy(_random(2, 2, 1, 1))
    proto = _model("Conv", {"x": x.numpy(), "w": w.numpy()}, strides=[2, 2])
    w.requires_grad_()
    Mirror(ir.from_proto(proto))({"x": x, "w": w})["y0"].square().sum().backward()
    picked = x[:, :, ::2, ::2]
    y = torch.einsum("nchw,kc->nkhw", picked, w.detach()[:, :, 0, 0])
    expected = 2 * torch.einsum("nkhw,nchw->kc", y, picked)
    torch.testing.assert_close(w.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_of_other_ranks(rank: int) -> None:
    inputs = {"x": _random(2, 3, *(6,) * rank), "w": _random(4, 3, *(3,) * rank), "b": _random(4)}
    _compare("Conv", inputs, pads=[1] * rank + [0] * rank)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 0, 1]},
        {"output_padding": [1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"output_shape": [14, 15]},
        {"dilations": [2, 1]},
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(attributes: dict[str, object], group: int) -> None:
    inputs = {"x": _random(2, 4, 6, 5), "w": _random(4, 3, 3, 3), "b": _random(3 * group)}
    _compare("ConvTranspose", inputs, strides=[2, 3], group=group, **attributes)


@pytest.mark.parametrize(
    "attributes", [{}, {"pads": [1, 0, 0, 1]}, {"output_padding": [1, 1]}, {"group": 2}]
)
def test_strided_conv_transpose_with_one_tap(attributes: dict[str, object]) -> None:
    inputs = {"x": _random(2, 4, 6, 5), "w": _random(4, 3, 1, 1)}
    _compare("ConvTranspose", inputs, strides=[2, 3], **attributes)


@pytest.mark.parametrize(("padding", "strides"), SETTINGS)
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_max_pool(padding: dict[str, object], strides: list[int], ceil_mode: int) -> None:
    if ceil_mode and padding.get("auto_pad") == "VALID":
        with pytest.raises(UnsupportedOperatorError, match="VALID with ceil_mode"):
            _compare(
                "MaxPool", {"x": _random(1, 1, 4, 4)}, kernel_shape=[3, 3], ceil_mode=1, **padding
            )
        return
    for size in SIZES:
        inputs = {"x": _random(2, 3, *size)}
        settings = {"kernel_shape": [3, 3], "strides": strides, "ceil_mode": ceil_mode, **padding}
        _compare("MaxPool", inputs, outputs=2, **settings)
        if "auto_pad" not in padding:
            _compare("MaxPool", inputs, dilations=[2, 1], **settings)
        _compare("MaxPool", inputs, outputs=2, storage_order=1, **settings)


@pytest.mark.parametrize(("padding", "strides"), SETTINGS)
@pytest.mark.parametrize("counts_pads", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool(
    padding: dict[str, object], strides: list[int], counts_pads: int, ceil_mode: int
) -> None:
    if ceil_mode and padding.get("auto_pad") == "VALID":
        with pytest.raises(UnsupportedOperatorError, match="VALID with ceil_mode"):
            _compare(
                "AveragePool",
                {"x": _random(1, 1, 4, 4)},
                kernel_shape=[3, 3],
                ceil_mode=1,
                **padding,
            )
        return
    for size in SIZES:
        inputs = {"x": _random(2, 3, *size)}
        settings = {"kernel_shape": [3, 3], "strides": strides, "ceil_mode": ceil_mode, **padding}
        _compare("AveragePool", inputs, count_include_pad=counts_pads, **settings)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_automatic_padding_that_runtimes_differ_on_is_refused(op_type: str) -> None:
    x, same = {"x": _random(1, 1, 6, 6)}, {"auto_pad": "SAME_UPPER", "kernel_shape": [2, 2]}
    with pytest.raises(UnsupportedOperatorError, match="with dilations"):
        Mirror(ir.from_proto(_model(op_type, x, dilations=[2, 1], **same)))
    with pytest.raises(ModelError, match="set pads instead"):
        _run(op_type, x, strides=[3, 1], **same)


def test_strides_beyond_the_kernel_with_automatic_padding() -> None:
    x = {"x": _random(1, 1, 6, 6), "w": _random(1, 1, 1, 1)}
    for stride in (2, 3):  # crops, as a shortcut of a residual network does
        _compare("Conv", x, strides=[stride, stride], auto_pad="SAME_UPPER")
    with pytest.raises(ModelError, match="set pads instead"):
        _run("Conv", x, strides=[6, 6], auto_pad="SAME_UPPER")
    with pytest.raises(ModelError, match="set pads and output_padding"):
        _run("ConvTranspose", x, strides=[2, 2], auto_pad="SAME_UPPER")


def _run(op_type: str, inputs: dict[str, np.ndarray], **attributes) -> None:
    """Runs the mirror alone."""
    mirror = Mirror(ir.from_proto(_model(op_type, inputs, **attributes)))
    mirror({name: torch.from_numpy(array) for name, array in inputs.items()})
