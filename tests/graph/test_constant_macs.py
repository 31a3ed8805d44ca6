from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_cgmq.graph.constant_macs import ConstantMac
from onnx_cgmq.ort.session import open_session

MACS = [
    ("Conv", (6, 4, 3, 3), {}, (2, 4, 7, 7)),
    ("Conv", (6, 2, 3, 3), {"group": 2}, (2, 4, 7, 7)),
    ("Conv", (8, 1, 3), {"group": 4}, (2, 4, 7)),
    ("ConvTranspose", (4, 6, 3, 3), {}, (2, 4, 7, 7)),
    ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, (2, 4, 7, 7)),
    ("Gemm", (4, 6), {}, (2, 4)),
    ("Gemm", (6, 4), {"transB": 1}, (2, 4)),
    ("MatMul", (4, 6), {}, (2, 5, 4)),
]
"""Operator, shape of the weight, attributes, and shape of the input."""


def model_of(op: str, weight: np.ndarray, attributes: dict, shape: tuple[int, ...]) -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    w = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    w.type, w.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(weight.shape)
    node = ir.node(op, [x, w], attributes, name="mac")
    y = node.outputs[0]
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    y.shape = ir.Shape([None] * len(shape))
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(("op", "size", "attributes", "shape"), MACS)
def test_channels_are_scaled(op: str, size, attributes: dict, shape) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=size).astype(np.float32)
    model = model_of(op, weight, attributes, shape)
    mac = ConstantMac.of(model.graph.node(0))
    assert mac is not None
    np.testing.assert_array_equal(mac.stored(mac.kernels()), weight)

    x = rng.normal(size=shape).astype(np.float32)
    (y,) = open_session(model).run(None, {"x": x})
    axis = 1 if op.startswith("Conv") else x.ndim - 1
    assert (mac.axis, mac.rank, mac.channels) == (axis, y.ndim, y.shape[axis])
    powers_in = 2.0 ** rng.integers(-3, 3, x.shape[axis])
    powers_out = 2.0 ** rng.integers(-3, 3, y.shape[axis])

    along = [1] * x.ndim
    along[axis] = -1
    scaled = model_of(op, mac.scaled_inputs(powers_in).astype(np.float32), attributes, shape)
    moved = (x / powers_in.reshape(along)).astype(np.float32)
    np.testing.assert_array_equal(open_session(scaled).run(None, {"x": moved})[0], y)
    scaled = model_of(op, mac.scaled_outputs(powers_out).astype(np.float32), attributes, shape)
    want = y * powers_out.reshape(along).astype(np.float32)
    np.testing.assert_array_equal(open_session(scaled).run(None, {"x": x})[0], want)
