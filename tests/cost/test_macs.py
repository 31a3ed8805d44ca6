from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.cost.macs import MacOp, mac_ops
from onnx_cgmq.errors import ModelError


def one_node_op(op_type, a, b, a_constant=False, b_constant=True, **attributes) -> MacOp:
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(math.prod(shape)))
        for name, shape, wanted in (("a", a, a_constant), ("b", b, b_constant))
        if wanted
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape, constant in (("a", a, a_constant), ("b", b, b_constant))
        if not constant
    ]
    node = helper.make_node(op_type, ["a", "b"], ["y"], name="mac", **attributes)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [output], constants)
    (op,) = mac_ops(ir.from_proto(helper.make_model(graph)))
    return op


def brute_conv(a, b, strides, dilations, pads, group) -> int:
    """Counts every multiply-accumulate by itself; padding has the width of the nearest element."""
    spatial = a.shape[2:]
    rank = len(spatial)
    kernel = b.shape[2:]
    out = [
        (spatial[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i]
        + 1
        for i in range(rank)
    ]
    total = 0
    for o in range(b.shape[0]):
        first = (o // (b.shape[0] // group)) * b.shape[1]
        for c in range(b.shape[1]):
            for position in itertools.product(*map(range, out)):
                for tap in itertools.product(*map(range, kernel)):
                    at = tuple(
                        min(
                            max(position[i] * strides[i] + tap[i] * dilations[i] - pads[i], 0),
                            spatial[i] - 1,
                        )
                        for i in range(rank)
                    )
                    total += int(a[(0, first + c, *at)]) * int(b[(o, c, *tap)])
    return total


def draw_widths(rng, shape):
    return rng.choice([0, 2, 4, 8, 16, 32], size=shape)


def granularities(rng, shape, axis):
    channel = [size if i == axis else 1 for i, size in enumerate(shape)]
    return [draw_widths(rng, ()), draw_widths(rng, channel), draw_widths(rng, shape)]


CONVS = [
    ((1, 2, 5, 6), (3, 2, 3, 2), [1, 1], [1, 1], [0, 0, 0, 0], 1),
    ((1, 2, 5, 6), (3, 2, 3, 3), [2, 1], [1, 2], [1, 2, 0, 1], 1),
    ((1, 4, 5, 5), (6, 2, 3, 3), [2, 2], [1, 1], [1, 1, 1, 1], 2),
    ((1, 3, 4, 4), (3, 1, 1, 1), [3, 3], [1, 1], [0, 0, 0, 0], 3),
    ((1, 2, 7), (2, 2, 3), [2], [2], [2, 2], 1),
    ((1, 1, 3, 2, 4), (2, 1, 2, 2, 2), [1, 1, 2], [1, 1, 1], [0, 1, 0, 0, 1, 1], 1),
]


@pytest.mark.parametrize(("a", "b", "strides", "dilations", "pads", "group"), CONVS)
def test_conv_counts_every_pair_of_widths(a, b, strides, dilations, pads, group) -> None:
    op = one_node_op("Conv", a, b, strides=strides, dilations=dilations, pads=pads, group=group)
    rng = np.random.default_rng(0)
    for wa in granularities(rng, a, 1):
        for wb in granularities(rng, b, 0):
            expected = brute_conv(
                np.broadcast_to(wa, a), np.broadcast_to(wb, b), strides, dilations, pads, group
            )
            assert op.bops(wa, wb) == expected
    assert op.macs == brute_conv(np.ones(a), np.ones(b), strides, dilations, pads, group)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad_equals_explicit_pads(mode) -> None:
    a, b = (1, 2, 6, 5), (2, 2, 3, 2)
    explicit = {
        "SAME_UPPER": [0, 0, 1, 1],
        "SAME_LOWER": [1, 1, 0, 0],
        "VALID": [0, 0, 0, 0],
    }[mode]
    op = one_node_op("Conv", a, b, auto_pad=mode, strides=[2, 2])
    rng = np.random.default_rng(1)
    wa, wb = draw_widths(rng, a), draw_widths(rng, b)
    assert op.bops(wa, wb) == brute_conv(wa, wb, [2, 2], [1, 1], explicit, 1)


@pytest.mark.parametrize(("trans_a", "trans_b"), list(itertools.product([0, 1], repeat=2)))
def test_gemm_counts_every_pair_of_widths(trans_a, trans_b) -> None:
    m, k, n = 3, 4, 5
    a = (k, m) if trans_a else (m, k)
    b = (n, k) if trans_b else (k, n)
    op = one_node_op("Gemm", a, b, a_constant=True, transA=trans_a, transB=trans_b)
    rng = np.random.default_rng(2)
    for wa in granularities(rng, a, 1):
        for wb in granularities(rng, b, 0):
            left, right = np.broadcast_to(wa, a), np.broadcast_to(wb, b)
            product = (left.T if trans_a else left) @ (right.T if trans_b else right)
            assert op.bops(wa, wb) == product.sum()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 4), (4, 3)),
        ((1, 3, 4), (4, 2)),
        ((1, 2, 3, 4), (1, 2, 4, 5)),
        ((1, 2, 3, 4), (2, 4, 5)),
        ((1, 2, 3, 4), (4,)),
        ((4,), (4, 2)),
    ],
)
def test_matmul_counts_every_pair_of_widths(a, b) -> None:
    op = one_node_op("MatMul", a, b, b_constant=len(a) != len(b))
    rng = np.random.default_rng(3)
    wa, wb = draw_widths(rng, a), draw_widths(rng, b)
    assert op.bops(wa, wb) == np.matmul(wa, wb).sum()


def test_conv_transpose_counts_every_pair_of_widths() -> None:
    a, b = (1, 2, 3, 4), (2, 3, 2, 2)
    op = one_node_op("ConvTranspose", a, b, strides=[2, 2])
    rng = np.random.default_rng(4)
    wa, wb = draw_widths(rng, a), draw_widths(rng, b)
    expected = sum(int(wa[0, c].sum()) * int(wb[c].sum()) for c in range(2))
    assert op.bops(wa, wb) == expected


def all_ops():
    for a, b, strides, dilations, pads, group in CONVS:
        yield one_node_op(
            "Conv", a, b, strides=strides, dilations=dilations, pads=pads, group=group
        )
    yield one_node_op("Gemm", (1, 4), (3, 4), transB=1)
    yield one_node_op("MatMul", (1, 2, 3, 4), (2, 4, 5))
    yield one_node_op("ConvTranspose", (1, 2, 3, 4), (2, 3, 2, 2))


@pytest.mark.parametrize("op", list(all_ops()), ids=lambda op: f"{op.op_type}{op.tap_shape}")
def test_spread_is_the_transpose_of_taps(op) -> None:
    rng = np.random.default_rng(5)
    for operand, taps, spread in (
        (op.a, op.taps_a, op.spread_a),
        (op.b, op.taps_b, op.spread_b),
    ):
        weights = rng.integers(0, 9, op.tap_shape).astype(float)
        for widths in granularities(rng, operand.shape, min(1, len(operand.shape) - 1)):
            forward = (np.broadcast_to(taps(widths), op.tap_shape) * weights).sum()
            back = spread(weights, widths.shape)
            assert back.shape == widths.shape
            assert (back * widths).sum() == forward
        # Taps that are equal along an axis may come as one entry.
        ones = np.ones([1] * len(op.tap_shape))
        np.testing.assert_array_equal(spread(ones), spread(np.ones(op.tap_shape)))


def test_batch_counts_as_one_sample() -> None:
    assert one_node_op("Conv", (8, 2, 4, 4), (3, 2, 1, 1)).macs == 2 * 3 * 16
    assert one_node_op("Gemm", ("batch", 4), (4, 3)).macs == 12
    assert one_node_op("MatMul", ("batch", 5, 4), (4, 3)).macs == 60


def test_an_unknown_rank_is_refused_with_the_name() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"], name="mac")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "aby"]
    model = ir.from_proto(helper.make_model(helper.make_graph([node], "g", value[:2], value[2:])))
    with pytest.raises(ModelError, match=r"'mac' \(MatMul\): the rank of its input 'a'"):
        mac_ops(model)


def test_shapes_that_do_not_fit_are_refused_with_the_name() -> None:
    with pytest.raises(ModelError, match=r"'mac' \(Conv\): shapes .* do not fit"):
        one_node_op("Conv", (1, 3, 4, 4), (2, 2, 1, 1))
    with pytest.raises(ModelError, match=r"'mac' \(Gemm\)"):
        one_node_op("Gemm", (1, 3), (4, 2))
