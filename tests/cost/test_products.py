"""Counts of operators with several products or unusual shapes, against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.cost.bops import op_bops
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.errors import ModelError


def ops_of(op_type, shapes, domain="", types=None, **attributes):
    """The products of one node by label; its inputs are ``i0``, ``i1``, ..., or left out."""
    names = [f"i{index}" if shape is not None else "" for index, shape in enumerate(shapes)]
    types = types or {}
    inputs = [
        helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
        for name, shape in zip(names, shapes, strict=True)
        if name
    ]
    node = helper.make_node(op_type, names, ["y"], name="mac", domain=domain, **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [y]))
    return {op.node.removeprefix("mac").lstrip("."): op for op in mac_ops(ir.from_proto(model))}


def draw(rng, shape):
    return rng.choice([2, 4, 8, 16, 32], size=shape)


@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layout", [0, 1])
def test_products_of_recurrent_networks(op_type, layout) -> None:
    steps, size, hidden, directions = 5, 3, 4, 2
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type] * hidden
    x = (1, steps, size) if layout else (steps, 1, size)
    w, r = (directions, gates, size), (directions, gates, hidden)
    found = ops_of(op_type, [x, w, r], hidden_size=hidden, direction="bidirectional", layout=layout)
    rng = np.random.default_rng(0)
    wx, ww, wr = draw(rng, x), draw(rng, w), draw(rng, r)
    product, state = found[""], found["state"]
    by_loop = sum(
        int(wx.reshape(steps, size)[t, i]) * int(ww[d, g, i])
        for t, d, g, i in itertools.product(*map(range, (steps, directions, gates, size)))
    )
    assert op_bops(product, {"i0": wx, "i1": ww}) == by_loop
    # The state is float: every weight that it meets counts times 32 bits, at every time step.
    assert state.a.name == ""
    assert state.bops(np.int64(32), wr) == 32 * steps * int(wr.sum())
    assert product.macs + state.macs == directions * steps * gates * (size + hidden)


def brute_attention(q, k, v, heads, shared) -> tuple[int, int]:
    """Scores and values of ``[n, heads, length, depth]`` widths, one pair at a time."""
    scores = values = 0
    for n, head in itertools.product(range(q.shape[0]), range(heads)):
        group = head // (heads // shared)
        for i, j in itertools.product(range(q.shape[2]), range(k.shape[2])):
            scores += int((q[n, head, i] * k[n, group, j]).sum())
            values += 32 * int(v[n, group, j].sum())
    return scores, values


@pytest.mark.parametrize(("heads", "shared"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("joined", [False, True])
def test_products_of_attention(heads, shared, joined) -> None:
    queries, keys, depth, value_depth = 3, 5, 2, 4
    rng = np.random.default_rng(1)
    widths = [
        draw(rng, (1, heads, queries, depth)),
        draw(rng, (1, shared, keys, depth)),
        draw(rng, (1, shared, keys, value_depth)),
    ]
    expected = brute_attention(*widths, heads, shared)
    attributes = {}
    if joined:
        widths = [w.transpose(0, 2, 1, 3).reshape(1, w.shape[2], -1) for w in widths]
        attributes = {"q_num_heads": heads, "kv_num_heads": shared}
    found = ops_of("Attention", [w.shape for w in widths], **attributes)
    named = {f"i{index}": array for index, array in enumerate(widths)}
    assert (op_bops(found["scores"], named), op_bops(found["values"], named)) == expected


def test_attention_has_products_with_the_past() -> None:
    shapes = [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), None, (1, 2, 7, 4), (1, 2, 7, 4)]
    found = ops_of("Attention", shapes)
    assert {label: op.macs for label, op in found.items()} == {
        "scores": 2 * 3 * 5 * 4,
        "values": 2 * 3 * 5 * 4,
        "past_scores": 2 * 3 * 7 * 4,
        "past_values": 2 * 3 * 7 * 4,
    }


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bhid,bhjd->bhij", (1, 2, 3, 4), (1, 2, 5, 4)),
    ("...ij,kj->...ik", (1, 2, 3, 4), (5, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("i,j->ij", (3,), (4,)),
    ("ijk,jl->il", (2, 3, 4), (3, 2)),
]


@pytest.mark.parametrize(("equation", "a", "b"), EINSUMS)
def test_product_of_einsum(equation, a, b) -> None:
    rng = np.random.default_rng(2)
    wa, wb = draw(rng, a), draw(rng, b)
    (op,) = ops_of("Einsum", [a, b], equation=equation).values()
    assert op.bops(wa, wb) * op.samples == np.einsum(equation, wa, wb).sum()


FUSED = [
    ("bmk,bkn->bmn", {}),
    ("bkm,bnk->bmn", {"transA": 1, "transB": 1}),
    ("mbk,bkn->bmn", {"transBatchA": 1}),
    ("kbm,nbk->bmn", {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}),
]


@pytest.mark.parametrize(("equation", "attributes"), FUSED)
def test_product_of_fused_matmul(equation, attributes) -> None:
    sizes = {"b": 2, "m": 3, "k": 4, "n": 5}
    shapes = [[sizes[c] for c in term] for term in equation.split("->")[0].split(",")]
    rng = np.random.default_rng(3)
    wa, wb = (draw(rng, shape) for shape in shapes)
    (op,) = ops_of("FusedMatMul", shapes, "com.microsoft", **attributes).values()
    assert op.bops(wa, wb) * op.samples == np.einsum(equation, wa, wb).sum()


def test_dynamic_lstm_is_an_lstm_with_transposed_weights() -> None:
    steps, size, hidden = 5, 3, 4
    shapes = [(steps, 1, size), (1, size, 4 * hidden), (1, hidden, 4 * hidden)]
    found = ops_of("DynamicQuantizeLSTM", shapes, "com.microsoft", hidden_size=hidden)
    rng = np.random.default_rng(4)
    wx, ww, wr = (draw(rng, shape) for shape in shapes)
    product, state = found[""], found["state"]
    assert product.bops(wx, ww) == np.einsum("tni,dig->", wx, ww)
    assert state.bops(np.int64(32), wr) == 32 * steps * wr.sum()
    assert product.samples == 1


def test_product_with_a_matrix_packed_in_blocks() -> None:
    shapes = [(1, 7, 32), (6, 2, 8), (12,)]
    found = ops_of("MatMulNBits", shapes, "com.microsoft", K=32, N=6, bits=4, block_size=16)
    (op,) = found.values()
    assert op.macs == 7 * 32 * 6


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("ij,jk,kl->il", [(1, 3), (3, 4), (4, 5)], 2 * 1 * 3 * 4 * 5),
        ("ii,ij->j", [(3, 3), (3, 4)], 12),
        ("ij->ji", [(2, 3)], 0),
    ],
)
def test_other_einsums_count_as_float(equation, shapes, macs) -> None:
    found = ops_of("Einsum", shapes, equation=equation)
    assert sum(op.macs * op.samples for op in found.values()) == macs
    assert all((op.a.name, op.b.name) == ("", "") for op in found.values())


def test_deformable_convolution_has_a_float_input() -> None:
    x, w, offset = (1, 2, 5, 5), (3, 2, 3, 3), (1, 18, 3, 3)
    (op,) = ops_of("DeformConv", [x, w, offset], kernel_shape=[3, 3], strides=[1, 1]).values()
    assert op.macs == 3 * 2 * 9 * 9
    assert (op.a.name, op.b.name) == ("", "i1")
    widths = draw(np.random.default_rng(3), w)
    assert op_bops(op, {"i0": np.array(2), "i1": widths}) == 32 * 9 * int(widths.sum())


UINT8 = TensorProto.UINT8


@pytest.mark.parametrize(
    ("op_type", "domain", "shapes", "operands", "macs"),
    [
        ("ConvInteger", "", [(1, 2, 4, 4), (3, 2, 1, 1)], ("i0", "i1"), 96),
        ("MatMulInteger", "", [(1, 3, 4), (4, 5)], ("i0", "i1"), 60),
        ("QLinearMatMul", "", [(1, 4), (), (), (4, 5), (), (), (), ()], ("i0", "i3"), 20),
        ("QGemm", "com.microsoft", [(1, 4), (), (), (4, 5), (), ()], ("i0", "i3"), 20),
        ("QLinearConv", "", [(1, 2, 4, 4), (), (), (3, 2, 1, 1), (), (), (), ()], ("i0", "i3"), 96),
    ],
)
def test_products_of_quantized_operators(op_type, domain, shapes, operands, macs) -> None:
    types = dict.fromkeys(operands, UINT8)
    (op,) = ops_of(op_type, shapes, domain, types).values()
    assert (op.macs, op.a.name, op.b.name) == (macs, *operands)


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes", "macs"),
    [
        ("Attention", [(1, 5, 8), (8, 24), (24,)], {"num_heads": 2}, [5 * 8 * 24, 5 * 5 * 16]),
        (
            "Attention",
            [(1, 5, 8), (8, 24), (24,), None, (2, 1, 2, 7, 4)],
            {"num_heads": 2},
            [5 * 8 * 24, 5 * 12 * 16],
        ),
        ("MultiHeadAttention", [(1, 5, 8), (1, 7, 8), (1, 7, 8)], {"num_heads": 2}, [5 * 7 * 16]),
        ("MultiHeadAttention", [(1, 5, 2, 3, 4)], {"num_heads": 2}, [5 * 5 * 16]),
        (
            "GroupQueryAttention",
            [(1, 5, 8), (1, 5, 4), (1, 5, 4), (1, 1, 3, 4), (1, 1, 3, 4)],
            {"num_heads": 2, "kv_num_heads": 1},
            [5 * 8 * 16],
        ),
        (
            "GroupQueryAttention",
            [(1, 5, 16)],
            {"num_heads": 2, "kv_num_heads": 1},
            [5 * 5 * 16],
        ),
    ],
)
def test_products_of_attention_of_onnxruntime(op_type, shapes, attributes, macs) -> None:
    found = ops_of(op_type, shapes, "com.microsoft", **attributes)
    assert [op.macs for op in found.values()] == macs


def test_heads_that_do_not_divide_are_named() -> None:
    with pytest.raises(ModelError, match=r"'mac' \(Attention\).*3 heads of queries for 2 of keys"):
        ops_of("Attention", [(1, 3, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)])


def test_every_operator_is_one_of_onnx() -> None:
    from onnx_cgmq.graph.operators import MAC_OP_TYPES

    assert set(MAC_OP_TYPES) <= {schema.name for schema in onnx.defs.get_all_schemas()}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"strides": [0, 1]}, "below 1"),
        ({"dilations": [1, -1]}, "below 1"),
        ({"group": 0}, "below 1"),
        ({"pads": [2**31] * 4}, "bit operations"),
    ],
)
def test_absurd_convolutions_are_refused(settings, why) -> None:
    with pytest.raises(ModelError, match=why):
        ops_of("Conv", [(1, 1, 4, 4), (1, 1, 1, 1)], **settings)[""].bops(32, 32)


def test_wide_padding_is_counted_without_a_list_of_positions() -> None:
    op = ops_of("Conv", [(1, 1, 4), (1, 1, 3)], pads=[2**40, 2**40])[""]
    assert op.macs == 3 * (2**41 + 2)
