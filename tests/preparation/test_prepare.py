from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.capabilities import newest_opset
from onnx_cgmq.preparation.prepare import is_prepared, prepare

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def tensor(name, *shape, positive=False):
    array = RNG.normal(size=shape).astype(np.float32) * 0.3
    return numpy_helper.from_array(np.abs(array) + 0.1 if positive else array, name)


def lenet(opset: int, inputs_too: bool = False) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, Flatten, MatMul and Add, as old exporters write."""
    weights = [
        tensor("w1", 4, 1, 3, 3),
        tensor("b1", 4),
        tensor("gamma", 4),
        tensor("beta", 4),
        tensor("mean", 4),
        tensor("var", 4, positive=True),
        tensor("w2", 36, 5),
        tensor("b2", 5),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["m"], name="dense"),
        helper.make_node("Add", ["m", "b2"], ["s"]),
        helper.make_node("Dropout", ["s"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])]
    if inputs_too:
        infos += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])]
    return make(nodes, infos, outputs, weights, opset)


def make(nodes, inputs, outputs, weights=(), opset=21, functions=(), domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    version = max(4, helper.find_min_ir_version_for(imports[:1]), 8 if functions else 0)
    return helper.make_model(
        graph, opset_imports=imports, ir_version=version, functions=list(functions)
    )


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def run(model: onnx.ModelProto | ir.Model, feeds):
    proto = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)


def check_same(model: onnx.ModelProto, prepared: ir.Model, *shape):
    feeds = {"x": RNG.normal(size=shape).astype(np.float32)}
    for before, after in zip(run(model, feeds), run(prepared, feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(ir.serde.serialize_model(prepared), full_check=True)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, 25])
def test_prepared_models_of_old_and_new_opsets_compute_the_same(opset):
    model = lenet(opset)
    prepared = prepare(model)
    check_same(model, prepared, 3, 1, 8, 8)
    assert prepared.opset_imports[""] == newest_opset()
    assert "BatchNormalization" not in ops(prepared)
    assert "MatMul" not in ops(prepared)
    assert "Dropout" not in ops(prepared)
    assert ops(prepared).count("Gemm") == 1


def test_the_standard_domain_may_have_its_long_name():
    model = lenet(17)
    model.opset_import[0].domain = "ai.onnx"
    prepared = prepare(model)
    assert prepared.opset_imports[""] == newest_opset()
    check_same(model, prepared, 3, 1, 8, 8)


def test_initializers_that_are_graph_inputs_become_constant():
    model = lenet(9, inputs_too=True)
    prepared = prepare(model)
    assert [value.name for value in prepared.graph.inputs] == ["x"]
    check_same(model, prepared, 2, 1, 8, 8)


def test_nodes_have_unique_names_and_keep_those_given():
    prepared = prepare(lenet(17))
    names = [node.name for node in prepared.graph]
    assert all(names)
    assert len(set(names)) == len(names)
    assert "dense" in names


def test_names_that_clash_are_made_unique():
    model = make(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="same"),
            helper.make_node("MatMul", ["h", "w"], ["y"], name="same"),
        ],
        [floats("x", 2, 4)],
        [floats("y", 2, 4)],
        [tensor("w", 4, 4)],
    )
    assert len({node.name for node in prepare(model).graph}) == 2


def test_constant_nodes_and_expressions_become_initializers():
    weight = RNG.normal(size=(300, 40)).astype(np.float32)  # larger than usual folding limits
    nodes = [
        helper.make_node("Constant", [], ["raw"], value=numpy_helper.from_array(weight)),
        helper.make_node("Transpose", ["raw"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"),
    ]
    model = make(nodes, [floats("x", "n", 40)], [floats("y", "n", 300)])
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul"]
    node = next(iter(prepared.graph))
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), weight.T)
    assert prepared.graph.initializers
    check_same(model, prepared, 3, 40)


def test_weights_made_by_constant_of_shape_become_initializers():
    shape = numpy_helper.from_array(np.array([4, 3]), "shape")
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    prepared = prepare(make(nodes, [floats("x", 2, 4)], [floats("y", 2, 3)], [shape]))
    assert ops(prepared) == ["MatMul"]


def test_functions_are_inlined():
    body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    imports = [helper.make_opsetid("", 21)]
    function = helper.make_function("mine", "Dense", ["a", "b"], ["d"], body, imports)
    model = make(
        [helper.make_node("Dense", ["x", "w"], ["y"], domain="mine")],
        [floats("x", 2, 4)],
        [floats("y", 2, 3)],
        [tensor("w", 4, 3)],
        functions=[function],
        domains=["mine"],
    )
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul", "Relu"]
    assert not prepared.functions
    check_same(model, prepared, 2, 4)


@pytest.mark.parametrize("op", ["ConvTranspose", "Gemm"])
def test_batch_norm_after_conv_transpose_or_gemm_is_folded(op):
    shape = (2, 3, 5, 5) if op == "ConvTranspose" else (2, 3)
    weight = tensor("w", 3, 4, 3, 3) if op == "ConvTranspose" else tensor("w", 3, 4)
    stats = [tensor(name, 4, positive=True) for name in ("g", "b", "m", "v")]
    nodes = [
        helper.make_node(op, ["x", "w"], ["h"], name="mac"),
        helper.make_node("BatchNormalization", ["h", "g", "b", "m", "v"], ["y"]),
    ]
    out = (2, 4, 7, 7) if op == "ConvTranspose" else (2, 4)
    model = make(nodes, [floats("x", *shape)], [floats("y", *out)], [weight, *stats])
    prepared = prepare(model)
    assert ops(prepared) == [op]
    check_same(model, prepared, *shape)


def test_batch_norm_stays_where_the_value_is_read_twice():
    stats = [tensor(name, 4, positive=True) for name in ("g", "b", "m", "v")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h0"]),
        helper.make_node("Add", ["h0", "c"], ["h"]),
        helper.make_node("BatchNormalization", ["h", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Add", ["h", "n"], ["y"]),
    ]
    weights = [tensor("w", 3, 4), tensor("c", 4), *stats]
    model = make(nodes, [floats("x", 2, 3)], [floats("y", 2, 4)], weights)
    prepared = prepare(model)
    assert ops(prepared) == ["Gemm", "BatchNormalization", "Add"]
    check_same(model, prepared, 2, 3)


@pytest.mark.parametrize(
    ("x_shape", "bias_shape", "out_shape"),
    [
        ((2, 3), (4,), (2, 4)),
        ((2, 3), (1, 4), (2, 4)),
        ((2, 3), (1, 1, 4), (1, 2, 4)),
        ((1, 3), (5, 4), (5, 4)),
        ((2, 3), (2, 4), (2, 4)),
        ((2, 3), (1,), (2, 4)),
        ((2, 2, 3), (4,), (2, 2, 4)),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_matmul_add_becomes_gemm_only_where_it_is_one(x_shape, bias_shape, out_shape, swapped):
    operands = ["b", "m"] if swapped else ["m", "b"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", operands, ["y"]),
    ]
    weights = [tensor("w", 3, 4), tensor("b", *bias_shape)]
    model = make(nodes, [floats("x", *x_shape)], [floats("y", *out_shape)], weights)
    prepared = prepare(model)
    gemm = len(x_shape) == 2 and bias_shape in ((4,), (1, 4), (1,))
    assert ops(prepared) == (["Gemm"] if gemm else ["MatMul", "Add"])
    check_same(model, prepared, *x_shape)


def test_a_matmul_that_is_a_graph_output_does_not_become_gemm():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    weights = [tensor("w", 3, 4), tensor("b", 4)]
    model = make(nodes, [floats("x", 2, 3)], [floats("m", 2, 4), floats("y", 2, 4)], weights)
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul", "Add"]
    assert [value.name for value in prepared.graph.outputs] == ["m", "y"]


def test_equal_weights_of_different_layers_are_not_merged():
    same = np.zeros(4, np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["y"]),
    ]
    biases = [numpy_helper.from_array(same, name) for name in ("b1", "b2")]
    weights = [tensor("w1", 4, 4), tensor("w2", 4, 4), *biases]
    prepared = prepare(make(nodes, [floats("x", 2, 4)], [floats("y", 2, 4)], weights))
    assert {"b1", "b2"} <= set(prepared.graph.initializers)


def test_nodes_that_nothing_reads_are_removed():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("MatMul", ["x", "unused"], ["nobody"]),
    ]
    weights = [tensor("w", 3, 4), tensor("unused", 3, 4)]
    prepared = prepare(make(nodes, [floats("x", 2, 3)], [floats("y", 2, 4)], weights))
    assert ops(prepared) == ["MatMul"]
    assert set(prepared.graph.initializers) == {"w"}


def test_prepare_does_not_change_the_callers_model():
    model = lenet(13)
    before = model.SerializeToString()
    graph = load_model(model)
    count = len(graph.graph)
    prepare(model)
    prepare(graph)
    assert model.SerializeToString() == before
    assert len(graph.graph) == count
    assert not is_prepared(graph)


def test_preparing_twice_changes_nothing():
    once = prepare(lenet(13))
    twice = prepare(once)
    assert is_prepared(once)
    assert ops(twice) == ops(once)
    assert [n.name for n in twice.graph] == [n.name for n in once.graph]


def test_a_model_without_mac_operators_is_refused():
    model = make([helper.make_node("Relu", ["x"], ["y"])], [floats("x", 2)], [floats("y", 2)])
    with pytest.raises(ModelError, match=r"nothing to quantize.*Conv.*its operators: Relu"):
        prepare(model)


@pytest.mark.parametrize("op", ["QuantizeLinear", "DynamicQuantizeLinear"])
def test_a_quantized_model_is_refused(op):
    nodes = [
        helper.make_node(
            op, ["x", "s"] if op == "QuantizeLinear" else ["x"], ["q", "s2", "z2"], name="quant"
        )
    ]
    nodes[0].output[:] = ["q"] if op == "QuantizeLinear" else ["q", "s2", "z2"]
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    outputs = [helper.make_tensor_value_info("q", TensorProto.UINT8, [2])]
    weights = [scale] if op == "QuantizeLinear" else []
    with pytest.raises(ModelError, match=rf"already quantized \({op} 'quant'\).*float model"):
        prepare(make(nodes, [floats("x", 2)], outputs, weights))
    nodes[0].name = ""  # as most exporters of quantized models leave it
    with pytest.raises(ModelError, match=rf"already quantized \({op} of output 'q'\)"):
        prepare(make(nodes, [floats("x", 2)], outputs, weights))


def test_a_written_model_is_refused():
    graph = load_model(lenet(21))
    graph.metadata_props["onnx_cgmq.plan"] = "{}"
    with pytest.raises(ModelError, match=r"already quantized by onnx-cgmq.*float model"):
        prepare(graph)


def test_an_opset_that_onnxruntime_does_not_load_is_refused():
    graph = load_model(lenet(25))
    graph.opset_imports[""] = 99
    with pytest.raises(ModelError, match=r"opset 99, which onnxruntime .* does not load"):
        prepare(graph)


def test_a_conversion_that_fails_is_an_error(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no adapter for Foo")

    monkeypatch.setattr("onnx_cgmq.preparation.opset.ConvertVersionPass", broken)
    with pytest.raises(ModelError, match=r"from opset 18 to \d+: no adapter for Foo; export it"):
        prepare(lenet(13))


def test_a_pass_that_fails_is_an_error(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("Error during constant folding for node 'n'")

    monkeypatch.setattr("onnx_cgmq.preparation.prepare.optimizer.fold_constants_ir", broken)
    with pytest.raises(ModelError, match="can't be prepared: Error during constant folding for"):
        prepare(lenet(21))


def test_batch_norm_in_training_mode_is_not_folded():
    stats = [tensor(name, 4, positive=True) for name in ("g", "b", "m", "v")]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("BatchNormalization", ["h", *"gbmv"], ["y", "m2", "v2"], training_mode=1),
    ]
    model = make(nodes, [floats("x", 2, 3)], [floats("y", 2, 4)], [tensor("w", 3, 4), *stats])
    assert ops(prepare(model)) == ["Gemm", "BatchNormalization"]


def test_nodes_of_subgraphs_have_names_of_their_own():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 15]> g (float[n, 2] x, bool c) => (float[n, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}> {
            [node] h = MatMul (x, w)
            [choice] y = If (c) <
                then_branch = t () => (float[n, 2] a) { [node] a = MatMul (h, w) },
                else_branch = e () => (float[n, 2] b) { [node] b = Tanh (h) }
            > }"""
    )
    prepared = prepare(model)
    names = [node.name for node in prepared.graph.all_nodes()]
    assert len(set(names)) == len(names) == 4
    assert [node.name for node in prepared.graph] == ["node", "choice"]
