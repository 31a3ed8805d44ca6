from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.inspection import inspect
from tests.support.foreign import MICROSOFT, foreign_model

SCALE = {"s": np.float32(0.1)}
W8 = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)


def tensor(name: str, data_type: int, values, shape=()) -> onnx.TensorProto:
    return helper.make_tensor(name, data_type, shape, np.asarray(values).reshape(-1).tolist())


def qdq(x: str, zero: str, y: str, *, domain: str = "", clip: tuple[str, str] | None = None):
    """QuantizeLinear, perhaps Clip, DequantizeLinear."""
    nodes = [helper.make_node("QuantizeLinear", [x, "s", zero], [f"{y}.q"], domain=domain)]
    if clip is not None:
        nodes.append(helper.make_node("Clip", [f"{y}.q", *clip], [f"{y}.c"]))
    codes = nodes[-1].output[0]
    return [*nodes, helper.make_node("DequantizeLinear", [codes, "s", zero], [y], domain=domain)]


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("width", range(1, 9))
def test_qcdq_has_the_width_of_its_clip(width, narrow) -> None:
    """Brevitas writes INT8 weights with Clip, and UINT8 activations with Clip."""
    low, high = -(2 ** (width - 1)) + (narrow and width > 1), 2 ** (width - 1) - 1
    nodes = [
        *qdq("x", "u", "xq", clip=("zero", "most")),
        helper.make_node("Clip", ["w", "low", "high"], ["wc"]),
        helper.make_node("DequantizeLinear", ["wc", "s", "z"], ["wq"]),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    constants = {
        **SCALE,
        **{"w": W8, "z": np.int8(0), "low": np.int8(low), "high": np.int8(high)},
        **{"u": np.uint8(0), "zero": np.uint8(0), "most": np.uint8(2**width - 1)},
    }
    report = inspect(foreign_model(nodes, constants))
    assert report.bops == 12 * width * width
    assert report.tensors["w"].counts == {width: 12}
    assert report.tensors["x"].counts == {width: 1}


def test_float_weights_behind_a_quantizer() -> None:
    nodes = [
        *qdq("w", "z", "wq", clip=("low", "high")),
        helper.make_node("MatMul", ["x", "wq"], ["y"]),
    ]
    constants = {"z": np.int8(0), "low": np.int8(-3), "high": np.int8(3)}
    weight = np.ones((4, 3), np.float32)
    report = inspect(foreign_model(nodes, {**SCALE, "w": weight, **constants}))
    assert report.tensors["w"].counts == {3: 12}
    assert report.tensors["w"].stored == "FLOAT"
    assert report.bops == 12 * 3 * 32


def test_small_codes_of_another_tool_have_the_width_of_their_type() -> None:
    nodes = [
        *qdq("x", "z", "xq"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wq"]),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    weight = np.ones((4, 3), np.int8)
    report = inspect(foreign_model(nodes, {**SCALE, "w": weight, "z": np.int8(0)}))
    assert report.bops == 12 * 64


@pytest.mark.parametrize(
    ("data_type", "width"),
    [
        (TensorProto.INT2, 2),
        (TensorProto.UINT2, 2),
        (TensorProto.INT4, 4),
        (TensorProto.UINT4, 4),
        (TensorProto.INT8, 8),
        (TensorProto.INT16, 16),
        (TensorProto.UINT16, 16),
        (TensorProto.FLOAT8E4M3FN, 8),
    ],
)
def test_types_of_codes_give_the_width(data_type, width) -> None:
    """The form `native`, and files of compilers that take these types."""
    nodes = [
        *qdq("x", "z", "xq"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wq"]),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    constants = {
        "z": tensor("z", data_type, 0),
        "w": tensor("w", data_type, [1] * 12, (4, 3)),
    }
    report = inspect(foreign_model(nodes, {**SCALE, **constants}, opset=25))
    assert report.bops == 12 * width * width
    assert report.tensors["w"].stored_bytes == -(-12 * width // 8)


def test_16_bits_of_onnxruntime_before_opset_21() -> None:
    nodes = [
        *qdq("x", "z", "xq", domain=MICROSOFT),
        helper.make_node("MaxPool", ["xq"], ["p"], kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    weight = np.ones((4, 3), np.float32)
    model = foreign_model(nodes, {**SCALE, "w": weight, "z": np.uint16(0)}, ["n", 1, 2, 2], 17)
    report = inspect(model)
    assert report.bops == 12 * 16 * 32
    assert not report.notes


def test_codes_that_cast_and_mul_dequantize() -> None:
    """``Mul(Cast(codes), step)`` is a quantized weight; the product of two floats is not."""
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "f"], ["wq"]),
        helper.make_node("MatMul", ["x", "wq"], ["h"]),
        helper.make_node("Mul", ["v", "s"], ["vq"]),
        helper.make_node("MatMul", ["h", "vq"], ["y"]),
    ]
    constants = {"w": np.ones((4, 3), np.int8), "v": np.ones((3, 2), np.float32)}
    first, last = inspect(foreign_model(nodes, {**SCALE, **constants})).nodes
    assert (first.bops, last.bops) == (12 * 8 * 32, 6 * 1024)


def test_a_cast_that_wraps_does_not_narrow() -> None:
    """UINT8 codes above 127 are negative as INT8, so they have 8 bits, not 7."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "u"], ["q"]),
        helper.make_node("Cast", ["q"], ["i"], to=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["i", "s", "z"], ["xq"]),
        helper.make_node("MatMul", ["xq", "w"], ["y"]),
    ]
    constants = {"w": np.ones((4, 3), np.float32), "u": np.uint8(0), "z": np.int8(0)}
    assert inspect(foreign_model(nodes, {**SCALE, **constants})).bops == 12 * 8 * 32


def test_a_clip_in_a_wider_type_narrows() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "u"], ["q"]),
        helper.make_node("Cast", ["q"], ["i"], to=TensorProto.INT32),
        helper.make_node("Clip", ["i", "low", "high"], ["c"]),
        helper.make_node("Cast", ["c"], ["j"], to=TensorProto.UINT8),
        helper.make_node("DequantizeLinear", ["j", "s", "u"], ["xq"]),
        helper.make_node("MatMul", ["xq", "w"], ["y"]),
    ]
    ends = {"low": np.int32(0), "high": np.int32(31)}
    constants = {"w": np.ones((4, 3), np.float32), "u": np.uint8(0), **ends}
    assert inspect(foreign_model(nodes, {**SCALE, **constants})).bops == 12 * 5 * 32


@pytest.mark.parametrize("axis", [1, -1, None])
def test_transposed_codes_are_a_weight_that_is_read_transposed(axis) -> None:
    """A step for each output channel: of the transposed codes the columns, of the stored rows."""
    steps = np.float32(0.1) if axis is None else np.arange(1, 4, dtype=np.float32)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["wt", "steps"], ["wq"], **attributes),
        helper.make_node("MatMul", ["x", "wq"], ["y"]),
    ]
    report = inspect(foreign_model(nodes, {"steps": steps, "w": W8.T}))
    assert report.tensors["w"].counts == {8: 12}
    assert report.tensors["w"].shape == (3, 4)
    assert (report.macs, report.bops, report.weight_bytes) == (12, 12 * 8 * 32, 12)
    assert not report.notes
