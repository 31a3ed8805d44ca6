"""The pairs of weights that one INT16 sum holds, and the activations that they meet."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import integer_nodes
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.gating.summed_pairs import SumOrder, largest_pair, sum_order, weight_sums


def _node(op: str, **attributes) -> ir.Node:
    return ir.from_proto(helper.make_node(op, ["x", "w"], ["y"], **attributes))


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "expected"),
    [
        ("Conv", {}, (8, 3, 3, 3), SumOrder((0,), (2, 3, 1))),
        ("Conv", {}, (8, 3, 5), SumOrder((0,), (2, 1))),
        ("Conv", {"group": 2}, (8, 3, 1, 1), SumOrder((0,), (2, 3, 1))),
        ("Conv", {"group": 8}, (8, 1, 3, 3), None),
        ("Conv", {"group": 4}, (8, 1, 3, 3), SumOrder((0,), (2, 3, 1))),
        ("Conv", {}, (1, 1, 3, 3), None),
        ("Gemm", {}, (6, 5), SumOrder((1,), (0,))),
        ("Gemm", {"transB": 1}, (5, 6), SumOrder((0,), (1,))),
        ("MatMul", {}, (6, 5), SumOrder((1,), (0,))),
        ("MatMul", {}, (2, 6, 5), SumOrder((0, 2), (1,))),
        ("MatMul", {}, (6,), SumOrder((), (0,))),
    ],
)
def test_order_of_each_kernel(op, attributes, shape, expected) -> None:
    assert sum_order(_node(op, **attributes), shape) == expected


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 2, 1, 1), (3, 5, 2, 1), (2, 1, 3, 3)])
def test_largest_pairs_of_a_convolution_are_those_of_a_plain_loop(shape) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = []
    for channel in weight:
        places = itertools.product(*map(range, shape[2:]), range(shape[1]))
        line = [channel[c, i, j] for i, j, c in places]
        pairs = [line[k : k + 2] for k in range(0, len(line) - 1, 2)]
        expected.append(max((abs(a + b) for a, b in pairs if a * b > 0), default=0))
    found = SumOrder((0,), (2, 3, 1)).largest_pairs(weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_zeros_behind_the_channels_part_neighbours() -> None:
    weight = np.array([[[[1, 2]], [[4, 8]], [[16, 32]]]])  # channels of two places: 1 4 16, 2 8 32
    assert SumOrder((0,), (2, 3, 1)).largest_pairs(weight) == 8 + 32
    assert SumOrder((0,), (2, 3, 1), zeros=1).largest_pairs(weight) == 2 + 8


def test_one_of_an_odd_number_is_alone() -> None:
    assert SumOrder((), (0,)).largest_pairs(np.array([1, 2, 9])) == 3
    assert SumOrder((), (0,)).largest_pairs(np.array([9])) == 0


def test_largest_pair_for_activations() -> None:
    assert largest_pair(255) == 128
    assert largest_pair(15) > 254
    assert largest_pair(0) > 254


def test_sums_are_found_through_transposes_and_only_in_integer_kernels() -> None:
    numbers = ", ".join(map(str, range(24)))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]>
        g (float[n,6] x, float[n,4] z) => (float[n,4] y, float[n,6] u, float[n,6] v)
        <float[4,6] w = {{{numbers}}}> {{
            t = Transpose (w)
            y = MatMul (x, t)
            u = MatMul (z, w)
            s = Sin (z)
            v = MatMul (s, w)
        }}"""
    )
    gated = insert_gates(model, keep_float=["s"])
    widths = {**dict.fromkeys(quantizer_nodes(gated), 8), "s": 32}
    node, spec = quantizer_nodes(gated)["w"]
    integer = integer_nodes(gated, widths)
    found = list(weight_sums(node.outputs[0], spec.shape, integer))
    assert {order for order, _ in found} == {SumOrder((0,), (1,)), SumOrder((1,), (0,))}
    assert all(is_gated_quantizer(activation.producer()) for _, activation in found)
    assert len(found) == 2
