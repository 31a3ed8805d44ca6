from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnx_cgmq.inspection import inspect
from tests.support.foreign import MICROSOFT, QONNX, foreign_model, quant

ONES = {"s": np.float32(1), "z": np.float32(0)}
W = np.ones((4, 3), np.float32)


def bits(**widths) -> dict[str, np.ndarray]:
    return {name: np.asarray(width, np.float32) for name, width in widths.items()}


@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas", "finn.custom_op.general"])
@pytest.mark.parametrize(("weight", "activation"), [(3, 8), (1, 5), (6, 16)])
def test_quant_nodes_of_weights_and_activations(domain, weight, activation) -> None:
    nodes = [
        quant("x", "xq", "bx", domain, signed=0),
        quant("w", "wq", "bw", domain, narrow=1),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    report = inspect(foreign_model(nodes, {"w": W, **ONES, **bits(bx=activation, bw=weight)}))
    assert report.bops == 12 * weight * activation
    assert report.tensors["x"].counts == {activation: 1}
    assert report.tensors["w"].counts == {weight: 12}
    assert report.tensors["w"].stored_bytes == -(-12 * weight // 8)  # of its codes, in floats
    assert not report.notes


def test_widths_per_channel_count_exactly() -> None:
    nodes = [
        quant("x", "xq", "bx"),
        quant("w", "wq", "bw"),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    report = inspect(
        foreign_model(nodes, {"w": W, **ONES, **bits(bx=[[2, 2, 4, 8]], bw=[[3, 5, 7]])})
    )
    assert report.bops == (2 + 2 + 4 + 8) * (3 + 5 + 7)
    assert report.tensors["w"].counts == {3: 4, 5: 4, 7: 4}
    assert report.tensors["w"].granularity.value == "channel"


def test_a_transposed_weight_keeps_its_channels() -> None:
    nodes = [
        quant("w", "wq", "bw"),
        helper.make_node("Transpose", ["wq"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    constants = {"w": W.T.copy(), **ONES, **bits(bw=[[3], [5], [7]])}
    report = inspect(foreign_model(nodes, constants))
    assert report.bops == 4 * (3 + 5 + 7) * 32
    assert report.tensors["w"].shape == (3, 4)


def test_widths_of_bipolar_trunc_and_float_quantizers() -> None:
    def node(op_type, inputs, output):
        return helper.make_node(op_type, inputs, [output], domain=QONNX)

    nodes = [
        node("BipolarQuant", ["w", "s"], "wq"),
        quant("x", "a", "b8"),
        node("Trunc", ["a", "s", "z", "b8", "b3"], "b"),
        helper.make_node("MatMul", ["b", "wq"], ["h"]),
        node("FloatQuant", ["h", "s", "b4", "b3", "s", "s"], "c"),
        helper.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    constants = {"w": W, "v": np.ones((3, 2), np.float32), **ONES, **bits(b3=3, b4=4, b8=8)}
    first, last = inspect(foreign_model(nodes, constants)).nodes
    assert first.bops == 12 * 3 * 1
    assert last.bops == 6 * (1 + 4 + 3) * 32


def test_movers_keep_values_on_their_grid() -> None:
    nodes = [
        quant("x", "q", "b4", signed=0),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    model = foreign_model(nodes, {"w": W, **ONES, **bits(b4=4)}, ["n", 1, 4, 4])
    assert inspect(model).bops == 12 * 4 * 32


def test_concat_has_the_widest_width_and_add_is_float() -> None:
    nodes = [
        quant("x", "a", "b4"),
        quant("x", "b", "b2"),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Add", ["a", "b"], ["d"]),
        helper.make_node("MatMul", ["c", "u"], ["h"]),
        helper.make_node("MatMul", ["d", "w"], ["k"]),
        helper.make_node("Add", ["h", "k"], ["y"]),
    ]
    constants = {"w": W, "u": np.ones((8, 3), np.float32), **ONES, **bits(b2=2, b4=4)}
    first, second = inspect(foreign_model(nodes, constants)).nodes
    assert (first.bops, second.bops) == (24 * 4 * 32, 12 * 32 * 32)


def test_two_quantizers_of_one_tensor_have_two_entries() -> None:
    nodes = [
        quant("x", "a", "b4"),
        quant("x", "b", "b2"),
        helper.make_node("MatMul", ["a", "w"], ["h"]),
        helper.make_node("MatMul", ["b", "w"], ["k"]),
        helper.make_node("Add", ["h", "k"], ["y"]),
    ]
    report = inspect(foreign_model(nodes, {"w": W, **ONES, **bits(b2=2, b4=4)}))
    assert [node.bops for node in report.nodes] == [12 * 4 * 32, 12 * 2 * 32]
    assert {name: set(t.counts) for name, t in report.tensors.items()} == {
        "x": {4},
        "x (2)": {2},
        "w": {32},
    }


def test_a_width_that_is_not_constant_counts_as_float_with_a_note() -> None:
    nodes = [
        helper.make_node("Add", ["b4", "b4"], ["b8"]),
        quant("x", "q", "b8"),
        helper.make_node("MatMul", ["q", "w"], ["y"]),
    ]
    report = inspect(foreign_model(nodes, {"w": W, **ONES, **bits(b4=4)}))
    assert report.bops == 12 * 1024
    assert report.notes == (
        "x: the bit width of Quant 'q' is not a constant above 0; it counts as 32 bits",
    )


def test_notes_name_unknown_operators() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MultiThreshold", ["h"], ["i"], domain=QONNX),
        helper.make_node("QMoE", ["i"], ["j"], domain=MICROSOFT),
        helper.make_node("Scaler", ["j"], ["k"], domain="ai.onnx.ml"),
        helper.make_node("QuickGelu", ["k"], ["y"], domain=MICROSOFT),
    ]
    first, second = inspect(foreign_model(nodes, {"w": W})).notes
    assert first.startswith(f"{QONNX}.MultiThreshold (1 node) is not known")
    assert second.startswith("com.microsoft.QMoE (1 node) is not known")
