"""Placement of quantizers in small models with the structure of real ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def model(nodes, inputs, outputs, **weights) -> onnx.ModelProto:
    """Inputs and outputs are ``name=shape`` dicts of float tensors; ``ids`` is int64."""

    def info(name, shape):
        dtype = TensorProto.INT64 if name == "ids" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, dtype, shape)

    made = [helper.make_node(op, i, o, name=n, **a) for n, op, i, o, a in nodes]
    constants = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    graph = helper.make_graph(
        made,
        "g",
        [info(*item) for item in inputs.items()],
        [info(*item) for item in outputs.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def normal(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def tied() -> onnx.ModelProto:
    """Both ends of a language model: an embedding table, and the same table transposed."""
    return model(
        [
            ("embed", "Gather", ["table", "ids"], ["e"], {}),
            ("mix", "MatMul", ["e", "w"], ["h"], {}),
            ("turn", "Transpose", ["table"], ["t"], {"perm": [1, 0]}),
            ("head", "MatMul", ["h", "t"], ["y"], {}),
            ("look", "Gather", ["boxes", "ids"], ["z"], {}),
        ],
        {"ids": ["n", 3]},
        {"y": ["n", 3, 7], "z": ["n", 3, 4]},
        table=normal(7, 4),
        w=normal(4, 4),
        boxes=normal(7, 4),
    )


def lstm() -> onnx.ModelProto:
    return model(
        [
            ("turn", "Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
            ("lstm", "LSTM", ["t", "w", "r", "b"], ["seq", "last"], {"hidden_size": 3}),
            ("drop", "Squeeze", ["last", "zero"], ["h"], {}),
            ("head", "Gemm", ["h", "v"], ["y"], {}),
        ],
        {"x": ["n", 5, 4]},
        {"y": ["n", 2]},
        w=normal(1, 12, 4),
        r=normal(1, 12, 3),
        b=normal(1, 24),
        v=normal(3, 2),
        zero=np.array([0]),
    )


def einsum() -> onnx.ModelProto:
    return model(
        [
            ("project", "Einsum", ["x", "w"], ["h"], {"equation": "nti,iho->nhto"}),
            ("scores", "Einsum", ["h", "h"], ["y"], {"equation": "nhto,nhso->nhts"}),
        ],
        {"x": ["n", 5, 4]},
        {"y": ["n", 2, 5, 5]},
        w=normal(4, 2, 3),
    )


def attention() -> onnx.ModelProto:
    heads = {"q_num_heads": 2, "kv_num_heads": 1}
    made = model(
        [
            ("q", "MatMul", ["x", "wq"], ["queries"], {}),
            ("k", "MatMul", ["x", "wk"], ["keys"], {}),
            ("attend", "Attention", ["queries", "keys", "keys"], ["y"], heads),
        ],
        {"x": ["n", 5, 4]},
        {"y": ["n", 5, 8]},
        wq=normal(4, 8),
        wk=normal(4, 4),
    )
    made.opset_import[0].version = 23
    return made


def decoder() -> onnx.ModelProto:
    """ConvTranspose, a 1-D and a 3-D convolution."""
    return model(
        [
            ("up", "ConvTranspose", ["x", "w1", "b1"], ["a"], {"strides": [2], "group": 2}),
            ("smooth", "Conv", ["a", "w2"], ["b"], {"pads": [1, 1]}),
            ("shape", "Reshape", ["b", "volume"], ["c"], {}),
            ("volume", "Conv", ["c", "w3"], ["y"], {}),
        ],
        {"x": ["n", 4, 4]},
        {"y": ["n", 2, 1, 2, 1]},
        w1=normal(4, 1, 2),
        b1=normal(2),
        w2=normal(3, 2, 3),
        volume=np.array([-1, 3, 2, 2, 2]),
        w3=normal(2, 3, 2, 1, 2),
    )


FEEDS = {
    "x": lambda shape: normal(6, *shape),
    "ids": lambda shape: RNG.integers(0, 7, (6, *shape)),
}
MODELS = {"tied": tied, "lstm": lstm, "einsum": einsum, "attention": attention, "decoder": decoder}


def feeds(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim][1:] for i in proto.graph.input
    }
    return {name: FEEDS[name](shape) for name, shape in shapes.items()}


def specs(gated: ir.Model):
    return {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}


def at_widths(proto, width, **settings):
    """The gated model with every gate at a width, where its ladder has it, and the written one."""
    gated = insert_gates(prepare(proto), **settings, target="generic")
    widths = {
        name: np.full(spec.gate_shape, min(width, spec.ladder.widths[-1]))
        for name, spec in specs(gated).items()
    }
    plan = make_plan(gated, widths)
    return gated, plan, write_back(gated, plan, compact=False)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("width", [4, 8, 32])
@pytest.mark.parametrize("name", MODELS)
def test_written_models_equal_gated_models_in_output_and_cost(name, width, granularity) -> None:
    proto = MODELS[name]()
    settings = {"granularity": granularity, "activation_granularity": "tensor"}
    gated, plan, written = at_widths(proto, width, **settings)
    data = feeds(proto)
    expected = open_session(gated, threads=1, optimize=False).run(None, data)
    for optimize in (False, True):
        found = open_session(written, threads=1, optimize=optimize).run(None, data)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.macs == plan.cost.macs
    assert report.weight_bytes == plan.cost.weight_bytes
    if width < 32:
        assert report.rbop < 1


def test_one_quantizer_for_a_weight_in_two_layouts() -> None:
    gated = insert_gates(
        prepare(tied()), granularity="channel", activation_granularity="tensor", target="generic"
    )
    found = specs(gated)
    assert set(found) == {"table", "e", "w", "h"}
    # Rows of the table are the output channels of the head: one axis, whatever the layout.
    assert found["table"].granularity is Granularity.CHANNEL
    assert found["table"].axis == 0
    (reader,) = (node for node in gated.graph if node.name == "head")
    assert reader.inputs[1].producer().op_type == "Transpose"


def test_embedding_tables_behind_the_last_mac_get_no_quantizer() -> None:
    assert "boxes" not in specs(insert_gates(prepare(tied()), target="generic"))
    _, plan, written = at_widths(tied(), 4)
    assert written.graph.initializers["boxes"].dtype is ir.DataType.FLOAT
    # 7 x 4 and 4 x 4 elements of 4 bits, and the float boxes.
    assert plan.cost.weight_bytes == 14 + 8 + 4 * 28


def test_recurrent_networks_have_quantizers_on_weights_and_bias_but_not_on_the_state() -> None:
    gated = insert_gates(prepare(lstm()), target="generic")
    assert {name: spec.role for name, spec in specs(gated).items()} == {
        "t": Role.ACTIVATION,
        "w": Role.WEIGHT,
        "r": Role.WEIGHT,
        "b": Role.BIAS,
        "h": Role.ACTIVATION,
        "v": Role.WEIGHT,
    }
    _, plan, _ = at_widths(lstm(), 4)
    assert plan.cost.bops_by_node == {
        "lstm": 5 * 12 * 4 * 16,
        "lstm.state": 5 * 12 * 3 * 4 * 32,
        "head": 6 * 16,
    }


def branches() -> onnx.ModelProto:
    """A residual block: two convolutions read ``r``, which is added later too."""
    window = {"pads": [1, 1, 1, 1]}
    return model(
        [
            ("relu", "Relu", ["x"], ["r"], {}),
            ("left", "Conv", ["r", "w1"], ["a"], window),
            ("right", "Conv", ["r", "w2"], ["b"], window),
            ("join", "Sum", ["a", "b", "r"], ["s"], {}),
            ("head", "Conv", ["s", "w3"], ["y"], {}),
        ],
        {"x": ["n", 2, 4, 4]},
        {"y": ["n", 1, 4, 4]},
        w1=normal(2, 2, 3, 3),
        w2=normal(2, 2, 3, 3),
        w3=normal(1, 2, 1, 1),
    )


def test_a_node_kept_float_reads_float_beside_a_quantized_one() -> None:
    gated, plan, written = at_widths(branches(), 32, keep_float=["left"], fix={"right": 8})
    assert specs(gated)["w1"].ladder.widths == (32,)
    assert specs(gated)["r"].ladder.widths == specs(gated)["w2"].ladder.widths == (8,)
    macs = 16 * 9 * 4
    found = inspect(written)
    by_node = {node.name: node.bops for node in found.nodes}
    assert by_node["left"] == 1024 * macs
    assert found.bops == plan.cost.bops
    assert found.nodes[0].operands == ("r (float)", "w1")


def test_one_quantizer_for_both_branches() -> None:
    gated = insert_gates(prepare(branches()), integer_kernels=False, target="generic")
    assert list(specs(gated)) == ["r", "w1", "w2", "s", "w3"]
    (join,) = (node for node in gated.graph if node.op_type == "Sum")
    assert join.inputs[2].name == "r"


def test_widths_chosen_by_operator_type_and_by_pattern() -> None:
    gated = insert_gates(
        prepare(branches()),
        widths_for={"Conv": (4, 8), "w*": (2, 4)},
        fix={"s": 8},
        integer_kernels=False,
        target="generic",
    )
    assert {name: spec.ladder.widths for name, spec in specs(gated).items()} == {
        "r": (4, 8),
        "w1": (2, 4),
        "w2": (2, 4),
        "s": (8,),
        "w3": (2, 4),
    }
    with pytest.raises(ConfigError, match="'w4' matches no"):
        insert_gates(prepare(branches()), keep_float=["w4"], target="generic")


@pytest.mark.parametrize(
    ("tensor", "value", "text"),
    [
        ("w", np.nan, r"weight 'w' has NaN at \[1, 2\] \(node 'fc', Gemm; 1 of 12 values"),
        ("w", -np.inf, r"weight 'w' has -infinity at \[1, 2\]"),
        ("w", 3e38, r"weight 'w' has 3e\+38, which no grid in float32 holds, at \[1, 2\]"),
        ("b", np.inf, r"bias 'b' has infinity at \[2\]"),
    ],
)
def test_constants_that_have_no_grid_are_refused_by_name(tensor, value, text) -> None:
    weights = {"w": normal(4, 3), "b": normal(3)}
    weights[tensor].flat[5 if tensor == "w" else 2] = value
    made = model([("fc", "Gemm", ["x", "w", "b"], ["y"], {})], {"x": ["n", 4]}, {"y": ["n", 3]})
    made.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items())
    with pytest.raises(ModelError, match=text):
        insert_gates(made, target="generic")


def test_masks_of_infinity_are_no_weights() -> None:
    mask = np.array([0, -np.inf, 0], np.float32)
    nodes = [
        ("fc", "MatMul", ["x", "w"], ["h"], {}),
        ("ban", "Add", ["h", "mask"], ["m"], {}),
        ("soft", "Softmax", ["m"], ["y"], {}),
    ]
    gated = insert_gates(
        model(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, w=normal(4, 3), mask=mask), target="generic"
    )
    assert sorted(quantizer_nodes(gated)) == ["w", "x"]
