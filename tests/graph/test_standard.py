from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.standard import same_operator, standard_function


def _node(op_type: str, count: int = 1, domain: str = "") -> ir.Node:
    return ir.Node(domain, op_type, [ir.Value(name=f"x{i}") for i in range(count)])


def test_same_operator_compares_two_opsets() -> None:
    assert same_operator("Relu", 6, 7)
    assert not same_operator("Add", 6, 7)
    assert not same_operator("NoSuchOperator", 6, 7)
    assert not same_operator("LayerNormalization", 6, 17)


def test_standard_function_has_the_defaults_of_the_operator() -> None:
    function = standard_function(_node("HardSigmoid"), {}, 20, [ir.DataType.FLOAT])
    assert function is not None
    assert round(function.attributes["alpha"].as_float(), 6) == 0.2
    assert {node.op_type for node in function} >= {"Mul", "Add"}


def test_standard_function_may_depend_on_types() -> None:
    softmax = _node("Softmax")
    function = standard_function(softmax, {}, 13, [ir.DataType.FLOAT])
    assert function is not None
    assert [value.name for value in function.inputs] == ["input"]
    assert standard_function(_node("Softmax"), {}, 12, [ir.DataType.FLOAT]) is None


def test_standard_function_is_none_without_a_definition() -> None:
    assert standard_function(_node("Conv", 2), {}, 20, [None, None]) is None
    assert standard_function(_node("Relu", domain="com.example"), {}, 1, [None]) is None
    assert standard_function(_node("NoSuchOperator"), {}, 20, [None]) is None
    unknown = standard_function(_node("LayerNormalization", 2), {}, 17, [None, None])
    assert unknown is None
