"""Random bounds for graphs of other kinds: recurrent, attention, tied, up and down again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_cgmq.settings.config import Config
from tests.support.bounds import check_any_bound, check_minimum, configs
from tests.support.toys import CLASSES

STEPS, SIZE, HIDDEN = 5, 4, 6


def normal(*shape):
    """Random values that depend on the shape alone, so that every run builds the same graphs."""
    return np.random.default_rng(shape).normal(0, 0.5, shape)


def recurrent(op_type):
    """``x`` time first, through both directions, the last state of each."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type] * HIDDEN
    attributes = {"hidden_size": HIDDEN, "direction": "bidirectional"}
    nodes = [
        ("turn", "Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
        ("body", op_type, ["t", "w_in", "w_state", "bias"], ["", "last"], attributes),
        ("back", "Transpose", ["last"], ["b"], {"perm": [1, 0, 2]}),
        ("join", "Reshape", ["b", "flat"], ["h"], {}),
    ]
    weights = {"w_in": normal(2, gates, SIZE), "w_state": normal(2, gates, HIDDEN)}
    return nodes, {**weights, "bias": normal(2, 2 * gates), "flat": [-1, 2 * HIDDEN]}, 2 * HIDDEN


def pooled(nodes, weights, width):
    return [*nodes, ("pool", "ReduceMean", ["z", "axis"], ["h"], {"keepdims": 0})], {
        **weights,
        "axis": [1],
    }, width  # fmt: skip


def attention():
    heads = {"q_num_heads": 2, "kv_num_heads": 1}
    nodes = [
        ("query", "MatMul", ["x", "w_q"], ["q"], {}),
        ("key", "MatMul", ["x", "w_k"], ["k"], {}),
        ("body", "Attention", ["q", "k", "k"], ["z"], heads),
    ]
    return pooled(nodes, {"w_q": normal(SIZE, 8), "w_k": normal(SIZE, 4)}, 8)


def scores():
    """Attention in single nodes: two products of activations."""
    nodes = [
        ("key", "MatMul", ["x", "w_k"], ["k"], {}),
        ("turn", "Transpose", ["k"], ["kt"], {"perm": [0, 2, 1]}),
        ("body", "MatMul", ["x", "kt"], ["s"], {}),
        ("soft", "Softmax", ["s"], ["p"], {}),
        ("mix", "MatMul", ["p", "k"], ["z"], {}),
    ]
    return pooled(nodes, {"w_k": normal(SIZE, SIZE)}, SIZE)


def einsum():
    nodes = [("body", "Einsum", ["x", "w_e"], ["z"], {"equation": "nti,iho->nth"})]
    return pooled(nodes, {"w_e": normal(SIZE, HIDDEN, 2)}, HIDDEN)


def tied():
    """One weight in two layouts, as in autoencoders and language models."""
    nodes = [
        ("body", "MatMul", ["x", "w_t"], ["e"], {}),
        ("act", "Tanh", ["e"], ["a"], {}),
        ("turn", "Transpose", ["w_t"], ["w_back"], {}),
        ("decode", "MatMul", ["a", "w_back"], ["z"], {}),
    ]
    return pooled(nodes, {"w_t": normal(SIZE, HIDDEN)}, SIZE)


def unet():
    """Down, up again, joined with what was there before, and added to it."""
    half = {"strides": [2], "kernel_shape": [2]}
    nodes = [
        ("body", "Conv", ["x", "w_d"], ["d"], half),
        ("up", "ConvTranspose", ["d", "w_u", "bias"], ["u"], half),
        ("join", "Concat", ["x", "u"], ["c"], {"axis": 1}),
        ("mix", "Conv", ["c", "w_m"], ["m"], {"kernel_shape": [1]}),
        ("add", "Add", ["m", "x"], ["r"], {}),
        ("turn", "Transpose", ["r"], ["z"], {"perm": [0, 2, 1]}),
    ]
    weights = {"w_d": normal(3, STEPS, 2), "w_u": normal(3, STEPS, 2), "bias": normal(STEPS)}
    return pooled(nodes, {**weights, "w_m": normal(STEPS, 2 * STEPS, 1)}, STEPS)


KINDS = {
    "rnn": lambda: recurrent("RNN"),
    "gru": lambda: recurrent("GRU"),
    "lstm": lambda: recurrent("LSTM"),
    "attention": attention,
    "scores": scores,
    "einsum": einsum,
    "tied": tied,
    "unet": unet,
}


def build(kind: str, steps: int | str = STEPS) -> onnx.ModelProto:
    """``x [n, steps, SIZE]``, the body, and a head to ``y [n, CLASSES]``."""
    body, weights, width = KINDS[kind]()
    head = ("head", "Gemm", ["h", "w_head", "b_head"], ["y"], {})
    weights = {**weights, "w_head": normal(width, CLASSES), "b_head": normal(CLASSES)}
    constants = [
        onnx.numpy_helper.from_array(
            np.asarray(w, dtype=np.int64 if isinstance(w, list) else np.float32), name
        )
        for name, w in weights.items()
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=name, **a) for name, op, i, o, a in [*body, head]],
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", steps, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def samples() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(64, STEPS, SIZE)).astype(np.float32)


CHOICES = {
    "keep_float": st.sampled_from([(), ("body",), ("w_*",), ("h",)]),
    "fix": st.sampled_from([{}, {"head": 8}, {"w_head": 4}]),
}


@pytest.mark.parametrize("kind", KINDS)
@given(
    config=configs(**CHOICES),
    share=st.floats(0, 1),
    size=st.booleans(),
    integer_kernels=st.booleans(),
)
@settings(max_examples=2, deadline=None, derandomize=True)
def test_the_file_keeps_any_feasible_bound(kind, config, share, size, integer_kernels) -> None:
    check_any_bound(build(kind), samples(), config, share, size, integer_kernels)


@pytest.mark.parametrize("kind", ["attention", "scores"])
@given(size=st.booleans(), granularity=st.sampled_from(["tensor", "channel"]))
@settings(max_examples=2, deadline=None, derandomize=True)
def test_minimum_at_a_size_that_the_model_leaves_open(kind, size, granularity) -> None:
    config = Config(
        granularity=granularity, activation_granularity="tensor", shapes={"x": (1, STEPS, SIZE)}
    )
    check_minimum(build(kind, "steps"), samples(), config, size)
