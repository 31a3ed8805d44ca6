"""Parts of a graph, run one after the other, give what the whole graph gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.preparation.prepare import prepare
from tests.support.toys import convnet, mlp
from tools.fuzz.architectures import random_architecture


def _model(inputs, outputs, nodes, weights) -> onnx.ModelProto:
    """A model of float inputs and outputs, given as name to shape; its weights are random."""
    rng = np.random.default_rng(0)

    def values(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    constants = [
        onnx.numpy_helper.from_array(
            item if isinstance(item, np.ndarray) else rng.normal(0, 0.4, item).astype(np.float32),
            name,
        )
        for name, item in weights.items()
    ]
    made = [
        helper.make_node(op, i.split(), o.split(), name=f"{op}_{n}", **attributes)
        for n, (op, i, o, attributes) in enumerate(nodes)
    ]
    graph = helper.make_graph(made, "parts", values(inputs), values(outputs), constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


PADS = {"pads": [1] * 4}


def residual() -> onnx.ModelProto:
    """Conv, a residual block of two Convs, pooling, Gemm."""
    return _model(
        {"x": ["n", 2, 6, 6]},
        {"y": ["n", 3]},
        [
            ("Conv", "x k1 c1", "a", PADS),
            ("Relu", "a", "r", {}),
            ("Conv", "r k2 c2", "b", PADS),
            ("Relu", "b", "s", {}),
            ("Conv", "s k3 c3", "c", PADS),
            ("Add", "c r", "d", {}),
            ("Relu", "d", "e", {}),
            ("GlobalAveragePool", "e", "p", {}),
            ("Flatten", "p", "f", {}),
            ("Gemm", "f w b4", "y", {}),
        ],
        {
            **{"k1": (4, 2, 3, 3), "c1": (4,), "k2": (4, 4, 3, 3), "c2": (4,)},
            **{"k3": (4, 4, 3, 3), "c3": (4,), "w": (4, 3), "b4": (3,)},
        },
    )


def attention(masked: bool = False, blocks: int = 2) -> onnx.ModelProto:
    """Blocks of one attention head and a residual; a mask is an input that every block reads."""
    nodes, weights, x = [], {}, "x"
    if masked:
        nodes.append(("Mul", "mask hundred", "bias", {}))
        weights["hundred"] = np.array(-100, dtype=np.float32)
    for i in range(blocks):
        for one in "qkvo":
            weights[f"w{one}{i}"] = (6, 6)
        nodes += [
            *((("MatMul", f"{x} w{one}{i}", f"{one}{i}", {})) for one in "qkv"),
            ("Transpose", f"k{i}", f"t{i}", {"perm": [0, 2, 1]}),
            ("MatMul", f"q{i} t{i}", f"s{i}", {}),
            *([("Add", f"s{i} bias", f"m{i}", {})] if masked else []),
            ("Softmax", f"m{i}" if masked else f"s{i}", f"p{i}", {"axis": -1}),
            ("MatMul", f"p{i} v{i}", f"a{i}", {}),
            ("MatMul", f"a{i} wo{i}", f"o{i}", {}),
            ("Add", f"o{i} {x}", f"x{i}", {}),
        ]
        x = f"x{i}"
    nodes.append(("MatMul", f"{x} head", "y", {}))
    weights["head"] = (6, 3)
    inputs = {"x": ["n", 5, 6], **({"mask": ["n", 1, 5]} if masked else {})}
    return _model(inputs, {"y": ["n", 5, 3]}, nodes, weights)


def two_ways() -> onnx.ModelProto:
    """An output that comes out early, and an input that only the end reads."""
    return _model(
        {"x": ["n", 5], "late": ["n", 6]},
        {"early": ["n", 4], "y": ["n", 3]},
        [
            ("Gemm", "x w1 b1", "h", {}),
            ("Relu", "h", "r", {}),
            ("Gemm", "r w2", "early", {}),
            ("Gemm", "r w3", "g", {}),
            ("Tanh", "g", "t", {}),
            ("Gemm", "t w4", "z", {}),
            ("Add", "z late", "u", {}),
            ("Gemm", "u w5", "y", {}),
        ],
        {"w1": (5, 8), "b1": (8,), "w2": (8, 4), "w3": (8, 6), "w4": (6, 6), "w5": (6, 3)},
    )


def reshaped() -> onnx.ModelProto:
    """A Reshape whose target is computed from the shape of the input."""
    return _model(
        {"x": ["n", 2, 4]},
        {"y": ["n", 2, 3], "count": ["n", 6]},
        [
            ("Shape", "x", "shape", {}),
            ("Gather", "shape zero", "n", {"axis": 0}),
            ("Concat", "n rest", "target", {"axis": 0}),
            ("MatMul", "x w1", "h", {}),
            ("Relu", "h", "r", {}),
            ("MatMul", "r w2", "y", {}),
            ("Reshape", "y target", "count", {}),
        ],
        {"w1": (4, 5), "w2": (5, 3), "zero": np.array([0]), "rest": np.array([6])},
    )


def shared() -> onnx.ModelProto:
    """One weight that two layers read."""
    return _model(
        {"x": ["n", 6]},
        {"y": ["n", 6]},
        [("MatMul", "x w", "h", {}), ("Tanh", "h", "t", {}), ("MatMul", "t w", "y", {})],
        {"w": (6, 6)},
    )


def constant_output() -> onnx.ModelProto:
    """An output that depends on no input."""
    nodes = [("MatMul", "x w", "y", {}), ("MatMul", "v w", "c", {})]
    weights = {"w": (6, 3), "v": (2, 6)}
    return _model({"x": ["n", 6]}, {"y": ["n", 3], "c": [2, 3]}, nodes, weights)


def handed_on() -> onnx.ModelProto:
    """An output that is an input."""
    nodes = [("MatMul", "x w", "y", {})]
    return _model({"x": ["n", 6]}, {"x": ["n", 6], "y": ["n", 3]}, nodes, {"w": (6, 3)})


def many_alive() -> onnx.ModelProto:
    """Twelve layers whose results are all summed at the end, so that they stay alive."""
    nodes, weights = [], {}
    for i in range(12):
        nodes.append(("MatMul", f"{'x' if i == 0 else f'h{i - 1}'} w{i}", f"h{i}", {}))
        weights[f"w{i}"] = (4, 4)
    nodes.append(("Sum", " ".join(f"h{i}" for i in range(12)), "y", {}))
    return _model({"x": ["n", 4]}, {"y": ["n", 4]}, nodes, weights)


MODELS = {
    "mlp": mlp,
    "convnet": convnet,
    "residual": residual,
    "attention": attention,
    "masked attention": lambda: attention(masked=True),
    "two inputs, two outputs": two_ways,
    "shape": reshaped,
    "shared weight": shared,
    "constant output": constant_output,
    "input as output": handed_on,
    "many values alive": many_alive,
}


def _mirror(model) -> Mirror:
    mirror = Mirror(insert_gates(prepare(model), widths=(4, 8)))
    assert set(mirror.output_names) == {value.name for value in model.graph.output}
    return mirror


def _inputs(model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        value.name: [d.dim_value or 4 for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _check(mirror: Mirror, inputs: dict[str, torch.Tensor]) -> None:
    """Checks all that holds for the parts of every graph."""
    with torch.no_grad():
        whole = mirror(inputs)
        parts, values = mirror.parts(), mirror.entries(inputs)
        for part in parts:
            assert set(part.entries) <= set(values)
            values = mirror.run_part(part, values)
            assert set(values) == set(part.exits)
    slots = mirror._program.outputs
    assert set(parts[-1].exits) == set(slots.values())
    for name, slot in slots.items():
        torch.testing.assert_close(values[slot], whole[name], rtol=0, atol=0, equal_nan=True)
    for before, after in pairwise(parts):
        assert before.exits == after.entries
    for part in parts[:-1]:
        assert any(q.spec.role is Role.WEIGHT for q in mirror.quantized_in(part).values())
        assert len(part.steps) == len(set(map(id, part.steps)))
    found = {name for part in parts for name in mirror.quantized_in(part)}
    assert found == set(mirror.quantizers)


@pytest.mark.parametrize("name", MODELS)
def test_all_parts_give_what_the_graph_gives(name) -> None:
    model = MODELS[name]()
    _check(_mirror(model), _inputs(model))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_parts_of_random_networks_give_what_the_network_gives(case) -> None:
    model, inputs = random_architecture(case)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    _check(Mirror(insert_gates(prepare(model), widths=(4, 8))), tensors)


def _weights_by_part(mirror: Mirror) -> list[set[str]]:
    return [
        {name for name, q in mirror.quantized_in(part).items() if q.spec.role is Role.WEIGHT}
        for part in mirror.parts()
    ]


@pytest.mark.parametrize(("model", "count"), [(mlp(), 2), (convnet(), 3)])
def test_a_chain_has_a_part_for_each_layer_with_one_entry(model, count) -> None:
    mirror = _mirror(model)
    parts = mirror.parts()
    assert len(parts) == count
    assert all(len(part.entries) == 1 for part in parts)


def test_a_part_takes_in_what_follows_up_to_the_next_weight() -> None:
    mirror = _mirror(convnet())
    slot_of = mirror._program.slot_of
    assert [part.exits for part in mirror.parts()[:2]] == [(slot_of["p"],), (slot_of["f"],)]


def test_scores_end_a_part_before_softmax_does() -> None:
    mirror = _mirror(mlp(softmax=True))
    scores, last = mirror._program.slot_of["scores"], mirror.parts()[-1]
    assert last.entries == (scores,)
    assert not any(isinstance(step.call, GatedQuantizer) for step in last.steps)


def test_a_residual_block_is_one_part() -> None:
    assert _weights_by_part(_mirror(residual())) == [{"k1"}, {"k2", "k3"}, {"w"}]


@pytest.mark.parametrize("masked", [False, True])
def test_an_attention_block_ends_a_part_even_if_a_mask_goes_on(masked) -> None:
    parts = _weights_by_part(_mirror(attention(masked, blocks=3)))
    blocks = [{f"w{one}{i}" for one in "qkvo"} for i in (1, 2)]
    assert parts[-3:] == [*blocks, {"head"}]


def test_a_finished_output_and_a_waiting_input_do_not_join_parts() -> None:
    parts = _weights_by_part(_mirror(two_ways()))
    assert parts == [{"w1"}, {"w2"}, {"w3"}, {"w4"}, {"w5"}]


def test_a_part_has_at_most_eight_weights_however_many_values_are_alive() -> None:
    parts = _weights_by_part(_mirror(many_alive()))
    assert len(parts) > 1
    assert max(map(len, parts)) <= 8


def test_a_shared_weight_is_in_every_part_that_reads_it() -> None:
    assert _weights_by_part(_mirror(shared())) == [{"w"}, {"w"}]
