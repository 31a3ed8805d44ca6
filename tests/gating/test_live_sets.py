"""Live sets against a plain loop, and counted by hand."""

from __future__ import annotations

import math

import onnx_ir as ir
import pytest
from onnx import helper

from onnx_cgmq.contract.identifiers import LIVE_KEY
from onnx_cgmq.cost.activations import peak_bytes
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.live_sets import LiveSet, embed_live_sets, embedded_live_sets, live_sets
from onnx_cgmq.preparation.prepare import prepare
from tests.support.costs import GRAPHS, gated
from tests.support.toys import make_model


def brute_force(model: ir.Model) -> int:
    """Peak bytes of a float graph, as if it ran and freed each value behind its last reader."""
    held = {v.name: v for v in model.graph.inputs if v.name not in model.graph.initializers}
    nodes, peak = list(model.graph), 0
    for index, node in enumerate(nodes):
        held.update((output.name, output) for output in node.outputs)
        peak = max(peak, sum(_bytes(value) for value in held.values()))
        later = {v.name for reader in nodes[index + 1 :] for v in reader.inputs if v is not None}
        later |= {v.name for v in model.graph.outputs}
        held = {name: value for name, value in held.items() if name in later}
    return peak


def _bytes(value: ir.Value) -> int:
    return 4 * math.prod(dim if isinstance(dim, int) else 1 for dim in value.shape)


@pytest.mark.parametrize("graph", GRAPHS)
def test_peak_bytes_of_float_graphs_equal_a_plain_count(graph) -> None:
    # Without clamps, which quantizers absorb, the gated graph at 32 bits is the float graph.
    float_model = prepare(GRAPHS[graph]())
    for node in list(float_model.graph):
        if node.op_type == "Relu":
            node.op_type = "Tanh"
    sets = live_sets(insert_gates(float_model, integer_kernels=False))
    assert peak_bytes(sets, {}) == brute_force(float_model)


def test_live_sets_of_a_convnet_counted_by_hand() -> None:
    """Conv, Relu, MaxPool, Conv, Relu, Flatten, Gemm: x 64, r1 256, p 64, r2 and f 24, y 3."""
    sets = live_sets(gated("convnet"))
    assert sets == (
        LiveSet(0, {"x": 64, "p": 256}),  # r1 holds the codes of p
        LiveSet(0, {"p": 256 + 64}),
        LiveSet(0, {"p": 64, "f": 24}),
        LiveSet(0, {"f": 24 + 24}),
        LiveSet(3 * 32, {"f": 24}),
    )


def test_a_residual_is_live_until_the_add() -> None:
    sets = live_sets(gated("residual"))
    assert any({"r1", "h2"} <= set(item.elements) for item in sets)


def test_an_activation_that_is_also_read_as_float_counts_as_float() -> None:
    sets = live_sets(gated("residual", integer_kernels=False))
    assert not any("r1" in item.elements for item in sets)
    assert max(item.fixed_bits for item in sets) >= 2 * 48 * 32


def test_a_fixed_batch_is_counted_for_one_sample() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="g")]
    model = make_model(nodes, {"w": __import__("numpy").ones((8, 3))}, [8], batch=4)
    assert live_sets(insert_gates(model)) == (LiveSet(3 * 32, {"x": 8}),)


def test_embedded_live_sets_are_read_back() -> None:
    model, sets = gated("mlp"), (LiveSet(7, {"x": 1}), LiveSet(0, {"y": 2}))
    assert embedded_live_sets(model) == ()
    embed_live_sets(model, ())
    assert LIVE_KEY not in model.metadata_props
    embed_live_sets(model, sets)
    assert embedded_live_sets(model) == sets


@pytest.mark.parametrize(
    "text", ["[1]", "[[Infinity, {}]]", "[[-1, {}]]", '[[0, {"x": -2}]]', "[" * 200_000]
)
def test_damaged_live_sets_are_an_error(text) -> None:
    model = gated("mlp")
    model.metadata_props[LIVE_KEY] = text
    with pytest.raises(ModelError, match="live sets in the model's metadata are damaged"):
        embedded_live_sets(model)
