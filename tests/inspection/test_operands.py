from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.operands import Operands


def model(nodes, shapes, **weights) -> ir.Model:
    types = {"a": TensorProto.UINT8, "x": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, types[n], s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


W8 = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("QLinearMatMul", ["a", "s", "z", "w", "s", "o", "s", "z"], ["y"]),
        helper.make_node("MatMulInteger", ["a", "w", "z", "o"], ["y"]),
        helper.make_node(
            "QGemm", ["a", "s", "z", "w", "s", "o", "", "s", "z"], ["y"], domain="com.microsoft"
        ),
    ],
    ids=lambda node: node.op_type,
)
def test_operators_that_read_codes_have_the_widths_of_their_types(node) -> None:
    scalars = {"s": np.float32(0.1), "z": np.uint8(0), "o": np.int8(0)}
    report = inspect(model([node], {"a": ["n", 4]}, w=W8, **scalars))
    assert (report.macs, report.bops) == (16, 16 * 64)
    assert report.weight_bytes == 16


def test_a_tensor_read_in_two_ways_has_two_entries() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x.quantized"]),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="plain"),
        helper.make_node("MatMul", ["x.quantized", "w"], ["k"], name="narrow"),
        helper.make_node("Add", ["h", "k"], ["y"]),
    ]
    scalars = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((4, 4), np.float32)}
    quantized = model(nodes, {"x": ["n", 4]}, **scalars)
    assert set(Operands(quantized, {}).readings) == {"x", "x (float)", "w"}
    assert {node.name: node.bops for node in inspect(quantized).nodes} == {
        "plain": 16 * 1024,
        "narrow": 16 * 8 * 32,
    }
