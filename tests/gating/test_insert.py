from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.contract.bits import Granularity, GridForm, Role
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.load import load_model, save_model
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def tensor(name, *shape):
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make(nodes, inputs, outputs, weights=()):
    named = [
        helper.make_node(op, i, o, name=f"{op.lower()}_{o[0]}", **attributes)
        for op, i, o, attributes in nodes
    ]
    graph = helper.make_graph(named, "g", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def lenet() -> onnx.ModelProto:
    nodes = [
        ("Conv", ["x", "w1", "b1"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "w2", "b2"], ["h"], {"transB": 1}),
        ("Tanh", ["h"], ["t"], {}),
        ("Gemm", ["t", "w3", "b3"], ["y"], {}),
    ]
    weights = [tensor("w1", 4, 1, 3, 3), tensor("b1", 4), tensor("w2", 6, 36), tensor("b2", 6)]
    weights += [tensor("w3", 6, 5), tensor("b3", 5)]
    return make(nodes, [floats("x", "n", 1, 8, 8)], [floats("y", "n", 5)], weights)


def dense(*nodes, weights=(), x=("n", 4), y=("n", 4)):
    return make(list(nodes), [floats("x", *x)], [floats("y", *y)], weights)


def run(model: ir.Model, x, optimize=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(proto, options).run(None, {model.graph.inputs[0].name: x})[0]


def specs(model):
    return {name: spec for name, (_, spec) in quantizer_nodes(model).items()}


def node_named(model, name):
    return next(node for node in model.graph if node.name == name)


def set_gates(model, width):
    for node, spec in quantizer_nodes(model).values():
        gate = np.full(spec.gate_shape, spec.ladder.gate_of(width), np.float32)
        node.inputs[-1].const_value = ir.tensor(gate)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("granularity", list(Granularity))
def test_gated_model_starts_as_the_float_model(granularity, optimize):
    model = lenet()
    gated = insert_gates(model, granularity=granularity, target="generic")
    onnx.checker.check_model(ir.serde.serialize_model(gated), full_check=True)
    x = RNG.normal(size=(3, 1, 8, 8)).astype(np.float32)
    expected = run(prepare(model), x, optimize)
    if optimize:  # other kernels for constant weights: float rounding
        np.testing.assert_allclose(run(gated, x, optimize), expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(run(gated, x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize("granularity", list(Granularity))
def test_narrow_gates_run_and_change_the_output(granularity, width):
    gated = insert_gates(lenet(), granularity=granularity, target="generic")
    x = RNG.normal(size=(2, 1, 8, 8)).astype(np.float32)
    before = run(gated, x)
    set_gates(gated, width)
    onnx.checker.check_model(ir.serde.serialize_model(gated), full_check=True)
    plain, optimized = run(gated, x), run(gated, x, optimize=True)
    assert not np.array_equal(plain, before)
    # A rounding difference of a float kernel may move single codes.
    scale = np.abs(before).max()
    assert np.abs(plain - optimized).mean() < scale * 2.0**-width


@pytest.mark.parametrize("granularity", list(Granularity))
def test_gated_model_survives_a_file(tmp_path, granularity):
    gated = insert_gates(
        lenet(), granularity=granularity, activation_granularity="tensor", target="generic"
    )
    set_gates(gated, 4)
    node, _ = quantizer_nodes(gated)["w1"]
    high = node.inputs[1]
    high.const_value = ir.tensor(np.full(high.shape.numpy(), 0.75, np.float32))
    save_model(gated, tmp_path / "gated.onnx")
    loaded = load_model(tmp_path / "gated.onnx")
    assert specs(loaded) == specs(gated)
    for name, (node, _) in quantizer_nodes(gated).items():
        others = quantizer_nodes(loaded)[name][0].inputs
        for mine, other in zip(node.inputs[1:], others[1:], strict=True):
            assert mine.name == other.name
            np.testing.assert_array_equal(mine.const_value.numpy(), other.const_value.numpy())
    x = RNG.normal(size=(2, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(loaded, x), run(gated, x))


def test_quantizers_of_a_lenet():
    found = specs(insert_gates(lenet(), target="generic"))
    assert list(found) == ["x", "w1", "b1", "f", "w2", "b2", "t", "w3", "b3"]
    roles = {name: spec.role for name, spec in found.items()}
    assert {n for n, r in roles.items() if r is Role.ACTIVATION} == {"x", "f", "t"}
    assert {n for n, r in roles.items() if r is Role.BIAS} == {"b1", "b2", "b3"}
    forms = {name: found[name].form for name in ("x", "f", "t", "w1", "b1")}
    assert forms == {
        "x": GridForm.AFFINE,
        "f": GridForm.UNSIGNED,
        "t": GridForm.AFFINE,
        "w1": GridForm.SYMMETRIC,
        "b1": GridForm.SYMMETRIC,
    }
    assert found["x"].shape == (1, 1, 8, 8)
    assert found["f"].shape == (1, 36)


def test_quantizers_have_names_and_initial_values():
    model = lenet()
    gated = insert_gates(model, target="generic")
    node, spec = quantizer_nodes(gated)["w1"]
    assert node.name == "w1.quantizer"
    assert [v.name for v in node.inputs] == ["w1", "w1.high", "w1.gate"]
    assert node.outputs[0].name == "w1.quantized"
    w1 = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(
        node.inputs[1].const_value.numpy(), np.full(spec.range_shape, np.abs(w1).max())
    )
    assert node.inputs[2].const_value.numpy() == 5.5
    node, spec = quantizer_nodes(gated)["x"]
    assert [v.name for v in node.inputs] == ["x", "x.low", "x.high", "x.gate"]
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), [-1] * 4)


def test_channel_axes_of_weights_and_activations():
    nodes = [
        ("ConvTranspose", ["x", "w0"], ["u"], {}),
        ("Conv", ["u", "w1"], ["c"], {}),
        ("Reshape", ["c", "s"], ["f"], {}),
        ("Gemm", ["f", "w2"], ["g"], {"transB": 1}),
        ("Gemm", ["g", "w3"], ["h"], {}),
        ("MatMul", ["h", "w4"], ["y"], {}),
    ]
    weights = [tensor("w0", 2, 3, 1, 1), tensor("w1", 4, 3, 1, 1), tensor("w2", 6, 16)]
    weights += [tensor("w3", 6, 7), tensor("w4", 7, 4)]
    weights.append(numpy_helper.from_array(np.array([-1, 16]), "s"))
    gated = insert_gates(
        dense(*nodes, weights=weights, x=("n", 2, 2, 2)),
        granularity=Granularity.CHANNEL,
        target="generic",
    )
    found = specs(gated)
    axes = {name: found[name].axis for name in ("w0", "w1", "w2", "w3", "w4", "x", "u", "f", "h")}
    expected = {"w0": 1, "w1": 0, "w2": 0, "w3": 1, "w4": 1, "x": 1, "u": 1, "f": 1, "h": 1}
    assert axes == expected
    assert found["w1"].gate_shape == (4, 1, 1, 1)
    node, _ = quantizer_nodes(gated)["w1"]
    high = node.inputs[1].const_value.numpy()
    w1 = numpy_helper.to_array(weights[1])
    np.testing.assert_array_equal(high[0].ravel(), np.abs(w1).max(axis=(1, 2, 3)))


def test_one_quantizer_for_several_readers():
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("MatMul", ["r", "w1"], ["a"], {}),
        ("MatMul", ["r", "w2"], ["b"], {}),
        ("Add", ["a", "b"], ["s"], {}),
        ("Add", ["s", "r"], ["y"], {}),
    ]
    gated = insert_gates(
        dense(*nodes, weights=[tensor("w1", 4, 4), tensor("w2", 4, 4)]), target="generic"
    )
    assert list(specs(gated)) == ["r", "w1", "w2"]
    readers = {name: node_named(gated, name).inputs for name in ("matmul_a", "matmul_b", "add_y")}
    assert readers["matmul_a"][0].name == readers["matmul_b"][0].name == "r.quantized"
    assert readers["add_y"][1].name == "r"  # others keep the float value


def test_one_quantizer_for_a_weight_of_two_layers():
    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("MatMul", ["h", "w"], ["y"], {})]
    gated = insert_gates(
        dense(*nodes, weights=[tensor("w", 4, 4)]), granularity="channel", target="generic"
    )
    assert list(specs(gated)) == ["x", "w", "h"]
    assert specs(gated)["w"].axis == 1


def test_tied_weight_whose_readers_disagree_on_the_channel_has_one_range():
    nodes = [("Gemm", ["x", "w"], ["h"], {}), ("Gemm", ["h", "w"], ["y"], {"transB": 1})]
    gated = insert_gates(
        dense(*nodes, weights=[tensor("w", 4, 4)]),
        granularity="channel",
        prune=True,
        target="generic",
    )
    spec = specs(gated)["w"]
    assert spec.granularity is Granularity.TENSOR
    assert not spec.ladder.prunes


def test_one_quantizer_for_a_value_multiplied_by_itself():
    nodes = [("Softmax", ["x"], ["s"], {}), ("MatMul", ["s", "s"], ["y"], {})]
    gated = insert_gates(dense(*nodes, x=(4, 4), y=(4, 4)), target="generic")
    assert list(specs(gated)) == ["s"]
    assert [v.name for v in node_named(gated, "matmul_y").inputs] == ["s.quantized"] * 2


def accumulators(gated):
    return [node.name for node in gated.graph if node.op_type == ACCUMULATOR_OP]


def test_bias_is_rounded_to_the_accumulator_of_integer_kernels():
    gated = insert_gates(
        lenet(), granularity="element", activation_granularity="tensor", target="generic"
    )
    assert accumulators(gated) == ["conv_c.accumulator", "gemm_h.accumulator", "gemm_y.accumulator"]
    node = node_named(gated, "conv_c.accumulator")
    assert [v.name for v in node.inputs] == ["b1.quantized", "x.step", "w1.step"]
    assert node_named(gated, "conv_c").inputs[2] is node.outputs[0]


@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_no_accumulator_without_an_integer_kernel(granularity):
    gated = insert_gates(
        lenet(), granularity="tensor", activation_granularity=granularity, target="generic"
    )
    assert not accumulators(gated)
    assert node_named(gated, "conv_c").inputs[2].name == "b1.quantized"


def test_no_accumulator_for_scaled_gemm_and_conv_transpose():
    gemm = dense(
        ("Gemm", ["x", "x", "b"], ["y"], {"alpha": 0.5}),  # no constant can take the factor
        weights=[tensor("b", 4)],
        x=(4, 4),
        y=(4, 4),
    )
    conv = dense(
        ("ConvTranspose", ["x", "w", "b"], ["y"], {}),
        weights=[tensor("w", 4, 2, 1, 1), tensor("b", 2)],
        x=("n", 4, 2, 2),
        y=("n", 2, 2, 2),
    )
    for model in (gemm, conv):
        gated = insert_gates(model, target="generic")
        assert not accumulators(gated)
        assert "b" in specs(gated)


def test_shared_bias_has_an_accumulator_for_each_reader():
    nodes = [("Gemm", ["x", "w1", "b"], ["h"], {}), ("Gemm", ["h", "w2", "b"], ["y"], {})]
    weights = [tensor("w1", 4, 4), tensor("w2", 4, 4), tensor("b", 4)]
    gated = insert_gates(dense(*nodes, weights=weights), target="generic")
    assert list(specs(gated)).count("b") == 1
    assert len(accumulators(gated)) == 2


def test_input_width_fixes_the_ladder_of_the_input():
    gated = insert_gates(lenet(), input_width=8, target="generic")
    spec = specs(gated)["x"]
    assert spec.ladder.widths == (8,)
    assert spec.range_shape == (1,)
    assert len(spec.ladder.nonzero) == 1
    assert specs(gated)["f"].ladder.widths == (2, 4, 8, 16, 32)
    x = RNG.uniform(-1, 1, size=(2, 1, 8, 8)).astype(np.float32)
    assert not np.array_equal(run(gated, x), run(prepare(lenet()), x))


@pytest.mark.parametrize(
    "mover",
    [
        "Transpose <perm = [0, 1, 3, 2]> (x)",
        "Pad (x, pads)",
        'Pad <mode = "reflect"> (x, pads)',
        'Resize <mode = "nearest"> (x, , scales)',
        "Identity (x)",
    ],
)
def test_input_width_holds_behind_movers(mover):
    """Padding before the first convolution is common in exported models."""
    assert ladder_of_first_activation(mover) == (8,)


@pytest.mark.parametrize(
    "other", ["Pad (x, pads, one)", 'Resize <mode = "linear"> (x, , scales)', "Relu (x)"]
)
def test_input_width_does_not_hold_behind_other_operators(other):
    assert ladder_of_first_activation(other) == (2, 4, 8, 16, 32)


def ladder_of_first_activation(call: str) -> tuple[int, ...]:
    """Widths of what a convolution reads behind a node on the input."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[n,2,4,4] x) => (float[n,3,h,w] y)
        <int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float[4] scales = {{1.0, 1.0, 2.0, 2.0}},
         float one = {{1.0}}>
        {{
            moved = {call}
            y = Conv (moved, weight)
        }}"""
    )
    weight = np.ones((3, 2, 1, 1), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    specs = [
        spec
        for _, spec in quantizer_nodes(
            insert_gates(model, input_width=8, target="generic")
        ).values()
    ]
    (activation,) = (spec for spec in specs if spec.role is Role.ACTIVATION)
    return activation.ladder.widths


def test_input_width_holds_behind_a_reshape():
    nodes = [("Reshape", ["x", "s"], ["f"], {}), ("MatMul", ["f", "w"], ["y"], {})]
    weights = [numpy_helper.from_array(np.array([-1, 4]), "s"), tensor("w", 4, 4)]
    gated = insert_gates(
        dense(*nodes, weights=weights, x=("n", 2, 2)), input_width=32, target="generic"
    )
    assert specs(gated)["f"].ladder.widths == (32,)
    x = RNG.normal(size=(3, 2, 2)).astype(np.float32)
    assert run(gated, x).shape == (3, 4)


def test_only_weights_are_pruned():
    found = specs(insert_gates(lenet(), granularity="channel", prune=True, target="generic"))
    assert {name for name, spec in found.items() if spec.ladder.prunes} == {"w1", "w2", "w3"}


def test_weights_that_are_all_zero_have_a_range():
    zero = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    gated = insert_gates(dense(("MatMul", ["x", "w"], ["y"], {}), weights=[zero]), target="generic")
    set_gates(gated, 2)
    assert (quantizer_nodes(gated)["w"][0].inputs[1].const_value.numpy() > 0).all()
    np.testing.assert_array_equal(run(gated, np.ones((2, 4), np.float32)), np.zeros((2, 4)))


@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_a_size_that_is_not_fixed_is_refused_where_gates_need_it(granularity):
    model = dense(
        ("Conv", ["x", "w"], ["y"], {}),
        weights=[tensor("w", 4, 2, 1, 1)],
        x=("n", 2, "height", 4),
        y=("n", 4, "height", 4),
    )
    assert specs(insert_gates(model, target="generic"))["x"].shape == (1, 2, 1, 4)
    if granularity == "channel":  # only the channels count
        assert specs(insert_gates(model, granularity=granularity, target="generic"))["x"].shape == (
            1,
            2,
            1,
            4,
        )
        return
    with pytest.raises(ModelError, match=r"'x', input of node 'conv_y'.*'height' on axis 2"):
        insert_gates(model, granularity=granularity, target="generic")


def test_prepared_and_other_models_give_the_same_and_stay_unchanged():
    prepared = prepare(lenet())
    count = len(prepared.graph)
    a, b = insert_gates(prepared, target="generic"), insert_gates(lenet(), target="generic")
    assert [node.name for node in a.graph] == [node.name for node in b.graph]
    assert len(prepared.graph) == count
    assert not prepared.functions


def test_a_model_with_gates_is_refused():
    with pytest.raises(ModelError, match="has gates already"):
        insert_gates(insert_gates(lenet(), target="generic"), target="generic")
    with pytest.raises(ModelError, match="has gates already"):
        prepare(insert_gates(lenet(), target="generic"))


def test_config_and_settings_together_are_refused():
    config = Config(granularity=Granularity.ELEMENT, target="generic")
    assert specs(insert_gates(lenet(), config))["w1"].granularity is Granularity.ELEMENT
    with pytest.raises(ConfigError, match="config or settings"):
        insert_gates(lenet(), config, granularity="tensor")
    with pytest.raises(ConfigError, match="nonsense"):
        insert_gates(lenet(), nonsense=1, target="generic")


def test_other_float_types_are_refused():
    weight = numpy_helper.from_array(np.ones((4, 4), np.float64), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [2, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ModelError, match=r"'mm' \(MatMul\) works on DOUBLE; .*float32"):
        insert_gates(model, target="generic")


def test_a_quantizer_without_its_spec_is_an_error():
    gated = insert_gates(lenet(), target="generic")
    node_named(gated, "x.quantizer").metadata_props.clear()
    with pytest.raises(ModelError, match=r"'x\.quantizer' has no 'onnx_cgmq\.quantizer'"):
        quantizer_nodes(gated)


def test_a_tensor_with_the_name_of_a_new_initializer_is_refused():
    model = dense(
        ("MatMul", ["x", "w"], ["h"], {}),
        ("Max", ["h", "w.high"], ["y"], {}),
        weights=[tensor("w", 4, 4), tensor("w.high", 1, 1)],
    )
    with pytest.raises(ModelError, match=r"already has a tensor named 'w\.high'; rename it"):
        insert_gates(model, target="generic")


def test_operators_in_subgraphs_stay_float():
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"])], "then", [], [floats("a", "n", 4)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])], "else", [], [floats("b", "n", 4)]
    )
    node = helper.make_node("If", ["flag"], ["y"], name="if", then_branch=then, else_branch=other)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph(
        [node], "g", [floats("x", "n", 4), flag], [floats("y", "n", 4)], [tensor("w", 4, 4)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ModelError, match=r"nothing to quantize.*outside of subgraphs"):
        insert_gates(model, target="generic")


def test_integer_arithmetic_is_left_alone():
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["i", "i"], ["j"], name="integers"),
            helper.make_node("MatMul", ["x", "w"], ["y"], name="floats"),
        ],
        "g",
        [floats("x", "n", 4), helper.make_tensor_value_info("i", TensorProto.INT64, [2, 2])],
        [floats("y", "n", 4), helper.make_tensor_value_info("j", TensorProto.INT64, [2, 2])],
        [tensor("w", 4, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert list(specs(insert_gates(model, target="generic"))) == ["x", "w"]


def test_an_activation_of_unknown_rank_is_refused():
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "s"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["y"], name="mm"),
        ],
        "g",
        [floats("x", 2, 4), helper.make_tensor_value_info("s", TensorProto.INT64, ["k"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", 4])],
        [tensor("w", 4, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ModelError, match=r"node 'mm' \(MatMul\): the rank of its input 'r'"):
        insert_gates(model, target="generic")


def test_activations_and_biases_have_widths_of_their_own():
    gated = insert_gates(
        lenet(), widths=(2, 8), activation_widths=(4, 8), bias_widths=(16,), target="generic"
    )
    expected = {"weight": (2, 8), "activation": (4, 8), "bias": (16,)}
    for _, spec in quantizer_nodes(gated).values():
        assert spec.ladder.widths == expected[spec.role.value]


def test_a_target_decides_the_ladders():
    gated = insert_gates(lenet(), target="ort-cpu")
    expected = {"weight": (2, 4, 8), "activation": (8,), "bias": (32,)}
    for _, spec in quantizer_nodes(gated).values():
        assert spec.ladder.widths == expected[spec.role.value]


def test_a_chosen_width_that_the_target_lacks_is_refused():
    with pytest.raises(ConfigError, match="widths of 'x': target 'ort-cpu' has no activations of"):
        insert_gates(lenet(), target="ort-cpu", fix={"x": 4})
    with pytest.raises(ConfigError, match="widths of 'w1': target 'ort-cpu' has no weights of 16"):
        insert_gates(lenet(), target="ort-cpu", fix={"w1": 16})
    gated = insert_gates(lenet(), target="ort-cpu", keep_float=("w1",), fix={"w2": 4})
    widths = {name: spec.ladder.widths for name, (_, spec) in quantizer_nodes(gated).items()}
    assert (widths["w1"], widths["w2"]) == ((32,), (4,))
