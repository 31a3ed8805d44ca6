from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.validate import validate


def _functions(count: int, last: str) -> ir.Model:
    """Functions that each call the next one twice; the last one calls ``last``."""
    opsets = [helper.make_opsetid("f", 1), helper.make_opsetid("", 18)]
    functions = []
    for level in range(count):
        callee = f"f{level + 1}" if level + 1 < count else last
        domain = "f" if callee.startswith("f") else ""
        nodes = [
            helper.make_node(callee, ["x"], ["a"], domain=domain),
            helper.make_node(callee, ["a"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("f", f"f{level}", ["x"], ["y"], nodes, opsets))
    value = helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1])
    call = helper.make_node("f0", ["v"], ["w"], domain="f")
    graph = helper.make_graph([call], "g", [value], [result])
    return ir.from_proto(helper.make_model(graph, functions=functions, opset_imports=opsets))


def test_nested_functions_are_valid() -> None:
    validate(_functions(5, "Neg"), "model")


def test_functions_in_a_circle_are_refused() -> None:
    with pytest.raises(ModelError, match=r"in a circle: .*f1.* export it again"):
        validate(_functions(3, "f1"), "model")


def test_functions_that_expand_to_too_many_nodes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"expand to 1\.1e\+12 nodes"):
        validate(_functions(40, "Neg"), "model")


def test_functions_that_are_nested_too_deep_are_refused() -> None:
    model = _functions(120, "Neg")
    for function in model.functions.values():  # one call each: no explosion
        function.remove(function[1])
    with pytest.raises(ModelError, match="120 calls deep"):
        validate(model, "model")


def _relu(shape: list[int]) -> ir.Model:
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    node = ir.node("Relu", [value])
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10)


def test_negative_sizes_become_unknown() -> None:
    model = _relu([-1, 3])
    validate(model, "model")
    assert model.graph.inputs[0].shape == ir.Shape([None, 3])


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"model: value 'x' of shape .* has 2\.31e\+18 elements"):
        validate(_relu([2**60, -1, 2, 0]), "model")


def test_data_of_another_size_than_the_shape_is_refused() -> None:
    model = _relu([2])
    proto = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    proto.dims[0] = 4
    tensor = ir.serde.deserialize_tensor(proto)
    model.graph.register_initializer(ir.Value(name="w", const_value=tensor))
    with pytest.raises(
        ModelError, match=r"tensor 'w' has data that does not fit its type and shape \[4\]"
    ):
        validate(model, "model")


def test_a_name_that_is_not_text_is_refused() -> None:
    content = ir.to_proto(_relu([2])).SerializeToString().replace(b"Relu", b"Re\xffu")
    with pytest.raises(ModelError, match=r"has the name b'.*not text"):
        validate(ir.from_proto(onnx.load_model_from_string(content)), "model")
