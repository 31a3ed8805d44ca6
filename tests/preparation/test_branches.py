from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.preparation.branches import (
    hidden_branches,
    inline_constant_branches,
    remove_identities,
)
from onnx_cgmq.preparation.prepare import prepare

X = np.array([1, -2], np.float32)


def build(body: str, constants: str = "") -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x, bool c) => (float[2] y) '
        f"<bool yes = {{1}}, bool no = {{0}}{constants}> {{ {body} }}"
    )


def branches(then: str, other: str) -> str:
    return (
        f"<then_branch = t () => (float[2] a) {{ {then} }}, "
        f"else_branch = e () => (float[2] a) {{ {other} }}>"
    )


def run(model: ir.Model) -> list[float]:
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {"x": X, "c": np.array(True)}
    found = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]
    assert isinstance(found, np.ndarray)
    return list(found.tolist())


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(("condition", "y"), [("yes", [-1, 2]), ("no", [1, 2])])
def test_an_if_with_a_constant_condition_becomes_its_branch(condition: str, y: list[float]) -> None:
    choose = branches("a = Neg(x)", "a = Abs(x)")
    model = load_model(build(f"y = If({condition}) {choose}"))
    assert inline_constant_branches(model)
    remove_identities(model)
    assert len(model.graph) == 1
    assert run(model) == y
    assert not inline_constant_branches(model)


def test_nested_constant_branches_are_inlined() -> None:
    inner = branches("a = Identity(x)", "a = Identity(h)")
    model = load_model(
        build(f"h = Neg(x) y = If(yes) {branches(f'a = If(no) {inner}', 'a = Abs(x)')}")
    )
    while inline_constant_branches(model):
        pass
    remove_identities(model)
    assert ops(model) == ["Neg"]
    assert run(model) == [-1, 2]


def test_weights_of_the_other_branch_lose_their_reader() -> None:
    other = "m = Mul(x, w) a = Add(m, w)"
    model = load_model(
        build(f"y = If(yes) {branches('a = Neg(x)', other)}", ", float[2] w = {1, 2}")
    )
    inline_constant_branches(model)
    assert not model.graph.initializers["w"].uses()


def test_constants_of_the_branch_become_initializers() -> None:
    inner = "t () => (float[2] a) <float[2] k = {3, 4}> { a = Add(x, k) }"
    other = "e () => (float[2] a) <float[2] k = {5, 6}> { a = Add(x, k) }"
    node = f"If(yes) <then_branch = {inner}, else_branch = {other}>"
    model = load_model(build(f"b = {node} y = Add(b, k)", ", float[2] k = {10, 20}"))
    inline_constant_branches(model)
    assert run(model) == [14, 22]


def test_branches_whose_condition_depends_on_an_input_stay() -> None:
    model = load_model(build(f"y = If(c) {branches('a = Neg(x)', 'a = Abs(x)')}"))
    with hidden_branches(model):
        assert [node.domain for node in model.graph] != [""]
    assert not inline_constant_branches(model)
    assert run(model) == [-1, 2]


def test_remove_identities_keeps_those_that_return_outer_values() -> None:
    choose = branches("a = Identity(h)", "b = Identity(h) a = Identity(b)")
    model = load_model(build(f"h = Neg(x) g = Identity(h) z = If(c) {choose} y = Add(z, g)"))
    remove_identities(model)
    assert ops(model) == ["Neg", "If", "Add"]
    assert [len(graph) for graph in model.graphs()] == [3, 1, 1]
    assert run(model) == [-2, 4]


def test_remove_identities_keeps_one_between_input_and_output() -> None:
    model = load_model(build("y = Identity(x)"))
    remove_identities(model)
    assert ops(model) == ["Identity"]


def test_weights_that_a_constant_branch_puts_together_are_initializers() -> None:
    constants = ", int64[1] zero = {0}, int64[1] one = {1}"
    body = """
        ends = Neg (minus)
        p = Slice (w, zero, one, zero)
        q = Slice (w, one, ends, zero)
        r = Concat <axis = 0> (q, p)
        a = MatMul (x, r)
    """
    model = build(f"y = If(yes) {branches(body, 'a = Identity(x)')}", constants)
    for name, values in (("w", np.eye(2, dtype=np.float32)), ("minus", np.array([-2]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul"]
    assert run(prepared) == [-2, 1]
