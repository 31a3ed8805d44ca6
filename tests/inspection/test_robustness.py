"""Reports on odd files: no width is read too narrow, and a note tells what can't be read."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.errors import ModelError
from onnx_cgmq.inspection import inspect
from tests.support.foreign import MICROSOFT, foreign_model, quant

node = helper.make_node
CONSTANTS = {
    "w": np.ones((4, 3), np.float32),
    "s": np.float32(0.1),
    "z": np.int8(0),
    "u": np.uint8(0),
    "most": np.uint8(15),
}


def activation_bits(nodes, constants=None, **settings) -> int:
    """Bits of ``xq`` in ``MatMul(xq, w)``, where weights are float."""
    product = node("MatMul", ["xq", "w"], ["y"], name="mac")
    model = foreign_model([*nodes, product], {**CONSTANTS, **(constants or {})}, **settings)
    (mac,) = inspect(model).nodes
    return mac.bops // mac.macs // 32


def clipped(low: str, high: str, zero: str = "u") -> list:
    return [
        node("QuantizeLinear", ["x", "s", zero], ["q"]),
        node("Clip", ["q", low, high], ["c"]),
        node("DequantizeLinear", ["c", "s", zero], ["xq"]),
    ]


def test_limits_that_are_not_constant_do_not_narrow() -> None:
    computed = node("Add", ["most", "most"], ["twice"])
    assert activation_bits([computed, *clipped("u", "twice")]) == 8


def test_a_single_limit_leaves_the_other_end_of_the_type() -> None:
    assert activation_bits(clipped("", "most")) == 4
    assert activation_bits(clipped("", "seven", "z"), {"seven": np.int8(7)}) == 8


def test_limits_far_from_the_zero_point_do_not_narrow() -> None:
    assert (
        activation_bits(clipped("many", "all"), {"many": np.uint8(200), "all": np.uint8(255)}) == 8
    )


def test_limits_beside_an_unknown_zero_point_do_not_narrow() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("Clip", ["q", "u", "most"], ["c"]),
        node("DequantizeLinear", ["c", "scale", "zero"], ["xq"]),
    ]
    assert activation_bits(nodes) == 8


def test_zero_points_by_channel_never_widen_beyond_the_type() -> None:
    nodes = [
        node("DequantizeLinear", ["v", "scales", "zeros"], ["vq"], axis=1),
        node("MatMul", ["x", "vq"], ["y"], name="mac"),
    ]
    constants = {
        "v": np.ones((4, 3), np.uint8),
        "scales": np.ones(3, np.float32),
        "zeros": np.uint8([0, 128, 255]),
    }
    assert inspect(foreign_model(nodes, constants)).bops == 12 * 8 * 32


def test_the_type_of_codes_may_be_an_attribute_or_the_default() -> None:
    for settings, width in (({}, 8), ({"output_dtype": TensorProto.INT4}, 4)):
        nodes = [
            node("QuantizeLinear", ["x", "s"], ["q"], **settings),
            node("DequantizeLinear", ["q", "s"], ["xq"]),
        ]
        assert activation_bits(nodes) == width


@pytest.mark.parametrize("bits", [0.0, np.nan, -3.0])
def test_a_width_that_is_not_positive_counts_as_float(bits) -> None:
    nodes = [quant("x", "xq", "b")]
    assert activation_bits(nodes, {"b": np.float32(bits), "z": np.float32(0)}) == 32


def test_widths_that_do_not_fit_their_tensor_count_as_the_widest() -> None:
    widths = np.float32([2, 3, 4, 5, 6])
    assert activation_bits([quant("x", "xq", "b")], {"b": widths, "z": np.float32(0)}) == 6


def test_codes_of_an_unknown_operator_are_refused_by_name() -> None:
    nodes = [
        node("Mystery", ["x"], ["q"], domain="com.example"),
        node("DequantizeLinear", ["q", "s", "z"], ["xq"]),
    ]
    with pytest.raises(ModelError, match=r"node 'mac' .* rank of its input 'xq' is unknown"):
        activation_bits(nodes)


def test_a_note_names_codes_of_unknown_type() -> None:
    nodes = [
        node("Mystery", ["x"], ["q"], domain="com.example"),
        node("DequantizeLinear", ["q", "s"], ["xq"]),
        node("MatMul", ["xq", "w"], ["y"], name="mac"),
    ]
    model = foreign_model(nodes, CONSTANTS)
    model.graph.value_info.append(helper.make_tensor_value_info("xq", TensorProto.FLOAT, ["n", 4]))
    report = inspect(model)
    assert report.bops == 12 * 1024
    unknown, operator, sizes = report.notes
    assert unknown == "xq: the type of the codes 'q' is unknown; it counts as 32 bits"
    assert operator.startswith("com.example.Mystery (1 node) is not known")
    assert sizes == "sizes that do not follow from the inputs are as the file says: mac"


def test_embedding_tables_of_codes_are_weights_and_their_rows_activations() -> None:
    for nodes in (
        [
            node("Gather", ["t", "x"], ["g"]),
            node("DequantizeLinear", ["g", "s", "z"], ["e"]),
        ],
        [
            node("DequantizeLinear", ["t", "s", "z"], ["g"]),
            node("Gather", ["g", "x"], ["e"]),
        ],
    ):
        nodes = [*nodes, node("MatMul", ["e", "w"], ["y"])]
        constants = {**CONSTANTS, "t": np.ones((10, 4), np.int8)}
        report = inspect(foreign_model(nodes, constants, ["n", 5], x_type=TensorProto.INT64))
        assert report.bops == 5 * 12 * 8 * 32
        assert report.tensors["t"].stored_bytes == 40
        assert report.tensors["e"].role.value == "activation"


def test_embedding_tables_quantized_in_blocks() -> None:
    nodes = [
        node("GatherBlockQuantized", ["t", "x", "ts"], ["e"], domain=MICROSOFT, block_size=16),
        node("MatMul", ["e", "v"], ["y"]),
    ]
    constants = {
        "t": np.ones((10, 16), np.uint8),
        "ts": np.ones((10, 2), np.float32),
        "v": np.ones((32, 3), np.float32),
    }
    model = foreign_model(nodes, constants, ["n", 5], x_type=TensorProto.INT64)
    table = inspect(model).tensors["t"]
    assert (table.counts, table.stored_bytes) == ({4: 320}, 160)


def test_a_weight_without_elements_costs_nothing() -> None:
    nodes = [node("DequantizeLinear", ["v", "s", "z"], ["vq"]), node("MatMul", ["x", "vq"], ["y"])]
    report = inspect(foreign_model(nodes, {**CONSTANTS, "v": np.ones((4, 0), np.int8)}))
    assert (report.macs, report.bops, report.rbop) == (0, 0, 0)
