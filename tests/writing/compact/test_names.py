"""Short names are unique in all graphs, and former names can be restored."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnx_cgmq.writing.compact.names import restore_names, shorten_names

LOOP = """<ir_version: 10, opset_import: ["": 21]>
g (float[2, 2] a, bool flag) => (float[2, 2] result)
<float[2, 2] long_weight = {1, 2, 3, 4}, float[2, 2] b = {1, 0, 0, 1}> {
    [product_node] outer_product = MatMul(a, long_weight)
    chosen = If (flag) <
        then_branch = t () => (float[2, 2] then_value) { then_value = Add(outer_product, b) },
        else_branch = e () => (float[2, 2] else_value) { else_value = MatMul(outer_product, b) }
    >
    result = Relu(chosen)
}"""


def load() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(LOOP))


def run(model: ir.Model) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[1, -2], [3, 4]], np.float32)
    return [session.run(None, {"a": x, "flag": np.array(flag)})[0] for flag in (True, False)]


def test_short_names_keep_the_outputs() -> None:
    model = load()
    before = run(model)
    names = shorten_names(model, (), 0)
    np.testing.assert_array_equal(run(model), before)
    values = {str(v.name) for g in model.graphs() for n in g for v in (*n.outputs, *n.inputs) if v}
    assert {name for name in values if len(name) > 1} == {"flag", "result"}
    assert sorted(names.values()) == ["long_weight", "outer_product"]
    assert [node.name for node in model.graph if node.name] == ["product_node"]


def test_former_names_are_restored() -> None:
    model = load()
    names = shorten_names(model, (), 0)
    restore_names(model, names)
    run(model)
    product = next(node for node in model.graph if node.name == "product_node")
    assert [str(value.name) for value in product.inputs] == ["a", "long_weight"]
    assert set(model.graph.initializers) == {"long_weight", "b"}


def test_names_of_another_file_change_nothing() -> None:
    model = load()
    restore_names(model, {"nobody": "somebody"})
    assert set(model.graph.initializers) == {"long_weight", "b"}


def kept(model: ir.Model) -> set[str]:
    """The names of values and nodes that are longer than a short one."""
    values = [*model.graph.initializers.values()]
    values += [output for node in model.graph.all_nodes() for output in node.outputs]
    nodes = model.graph.all_nodes()
    return {str(item.name) for item in (*values, *nodes) if len(str(item.name)) > 2}


def test_names_of_the_float_model_stay_first_and_cheap_ones_before_dear_ones() -> None:
    float_names = {"outer_product", "chosen"}
    room = {0: set(), 13: {"chosen"}, 46: {"chosen", "outer_product"}}
    for size, names in room.items():
        model = load()
        before = run(model)
        shorten_names(model, float_names, size)
        np.testing.assert_array_equal(run(model), before)
        assert kept(model) == {"product_node", "result", *names}


def test_names_of_nodes_stay_only_if_the_float_model_has_them() -> None:
    model = load()
    relu = next(node for node in model.graph if node.op_type == "Relu")
    relu.name = "activation"
    shorten_names(model, (), 1000)
    assert relu.name == ""
    model = load()
    relu = next(node for node in model.graph if node.op_type == "Relu")
    relu.name = "activation"
    shorten_names(model, {"activation"}, 1000)
    assert relu.name == "activation"
    assert "long_weight" in kept(model)


def test_a_short_name_is_never_one_that_stays() -> None:
    model = load()
    before = run(model)
    names = shorten_names(model, {"b"}, 1)  # 'b' is as short as a name can be, and stays
    np.testing.assert_array_equal(run(model), before)
    assert "b" not in names
    assert "b" in model.graph.initializers
