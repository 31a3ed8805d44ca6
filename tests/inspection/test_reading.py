from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.inspection.reading import read_operand


def activation(nodes, **constants) -> ir.Value:
    """The value ``y`` of a graph over ``x`` that reads constants."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [ir.to_proto(ir.tensor(np.asarray(array), name=name)) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph)).graph.outputs[0]


@pytest.mark.parametrize(
    ("largest", "width"), [(0, 0), (1, 1), (3, 2), (4, 3), (15, 4), (100, 7), (200, 8)]
)
def test_a_clip_of_codes_limits_the_width(largest, width) -> None:
    node = helper.make_node
    value = activation(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("Flatten", ["q"], ["f"]),
            node("Clip", ["f", "low", "high"], ["c"]),
            node("DequantizeLinear", ["c", "s", "z"], ["y"]),
        ],
        s=np.float32(1),
        z=np.uint8(0),
        low=np.uint8(0),
        high=np.uint8(largest),
    )
    assert read_operand(value, {}).widths == width


def float_nodes(step_out="s"):
    node = helper.make_node
    return [
        node("Div", ["x", "s"], ["a"]),
        node("Round", ["a"], ["b"]),
        node("Max", ["b", "low"], ["c"]),
        node("Min", ["c", "high"], ["d"]),
        node("Mul", ["d", step_out], ["y"]),
    ]


def test_limits_in_float_nodes_give_widths_per_channel() -> None:
    value = activation(
        float_nodes(),
        s=np.float32([[1, 2]]),
        low=np.float32([[-3, 0]]),
        high=np.float32([[12, 3]]),
    )
    np.testing.assert_array_equal(read_operand(value, {}).widths, [[4, 2]])


def test_float_nodes_with_two_steps_are_no_quantizer() -> None:
    value = activation(
        float_nodes("t"),
        s=np.float32(1),
        t=np.float32(2),
        low=np.float32(0),
        high=np.float32(3),
    )
    assert read_operand(value, {}).widths == 32


def test_widths_of_a_weight_with_and_without_a_claim() -> None:
    value = activation(
        [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])],
        w=np.array([[128, 135]], dtype=np.uint8),
        s=np.float32(1),
        z=np.uint8(128),
    )
    reading = read_operand(value, {})
    assert reading.widths == 8  # without a claim the type gives the width
    assert reading.stored_bits == 16
    assert read_operand(value, {"y": {"granularity": "tensor"}}).widths == 4
    nested = {"y": {"granularity": "element", "ladder": [0, 2, 4, 8], "grid_width": 8}}
    np.testing.assert_array_equal(read_operand(value, nested).widths, [[0, 8]])
