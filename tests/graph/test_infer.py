from __future__ import annotations

import resource

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from onnx_cgmq.graph.infer import infer_shapes, skeleton

MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[batch, 6] x, bool c, float[6, 300] w) => (y)
<int64[2] shape = {-1, 100}>
{
    h = MatMul(x, w)
    y = If (c) <
        then_branch = t () => (t_out) { r = Reshape(h, shape) t_out = Abs(r) },
        else_branch = e () => (e_out) { r = Relu(h) e_out = Reshape(r, shape) }
    >
}
"""


def _model() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(MODEL))
    large = model.graph.inputs.pop()
    large.const_value = ir.tensor(np.zeros((6, 300), np.float32), name="w")
    model.graph.register_initializer(large)
    return model


def _types(model: ir.Model) -> list[tuple[str | None, ir.Shape | None, ir.TypeProtocol | None]]:
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    return [(value.name, value.shape, value.type) for value in values]


def test_infer_shapes_gives_what_onnx_infers_in_subgraphs_too() -> None:
    model, reference = _model(), _model()
    infer_shapes(model)
    ShapeInferencePass(strict_mode=False)(reference)
    assert _types(model) == _types(reference)
    shapes = {name: shape for name, shape, _ in _types(model)}
    assert shapes["h"] == ir.Shape(["batch", 300])
    assert shapes["t_out"] is not None
    assert len(shapes["t_out"]) == 2


def test_infer_shapes_keeps_inputs_and_initializers() -> None:
    model = _model()
    infer_shapes(model)
    assert [value.name for value in model.graph.inputs] == ["x", "c"]
    assert list(model.graph.initializers) == ["shape", "w"]
    assert all(value.is_initializer() for value in model.graph.initializers.values())
    assert all(value.const_value is not None for value in model.graph.initializers.values())


def test_skeleton_has_no_large_tensor() -> None:
    proto = skeleton(_model())
    assert [tensor.name for tensor in proto.graph.initializer] == ["shape"]
    assert [value.name for value in proto.graph.input] == ["x", "c", "w"]


def test_infer_shapes_changes_nothing_if_the_graph_contradicts_itself() -> None:
    model = _model()
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((7, 300), np.float32), name="w")
    model.graph.initializers["w"].shape = ir.Shape([7, 300])
    before = _types(model)
    infer_shapes(model)
    assert [name for name, _, _ in _types(model)] == [name for name, _, _ in before]
    assert list(model.graph.initializers) == ["shape", "w"]


def _graph(body: str) -> ir.Model:
    header = '<ir_version: 8, opset_import: ["" : 18]>'
    return ir.from_proto(onnx.parser.parse_model(f"{header}\ng (float[n, 8] x) => (y) {{{body}}}"))


DOUBLED = "k0 = Constant <value = float[1] {1}> ()" + "".join(
    f"k{i + 1} = Concat <axis = 0> (k{i}, k{i})" for i in range(24)
)


@pytest.mark.parametrize(
    "body",
    [
        "a = Constant <value = int64 {0}> () b = Constant <value = int64 {16777216}> ()"
        "d = Constant <value = int64 {1}> () r = Range (a, b, d)"
        "long = Cast <to = 1> (r) y = ReduceMax (long)",
        f"{DOUBLED} long = Identity (k24) y = ReduceMax (long)",
        # Only the values of the shape say that it is long.
        "s = Constant <value = int64[1] {8388608}> () two = Constant <value = int64[1] {2}> ()"
        "t = Mul (s, two) r = ConstantOfShape (t) long = Cast <to = 1> (r) y = ReduceMax (long)",
    ],
)
def test_long_vectors_are_not_listed(body) -> None:
    """onnx would need more than 2 GiB for the 2**24 elements."""
    model = _graph(body)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    infer_shapes(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    shapes = {name: shape for name, shape, _ in _types(model)}
    assert shapes["long"] == ir.Shape([1 << 24])


def test_shapes_behind_long_vectors_are_inferred_all_the_same() -> None:
    """A size that a Range leaves open, beside a shape that is computed."""
    model = _graph(
        "zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> ()"
        "at = Constant <value = int64[1] {1}> () rows = Constant <value = int64[1] {-1}> ()"
        "s = Shape (x) n = Gather (s, zero) r = Range (zero, n, one) long = Add (r, one)"
        "w = Gather (s, at) both = Concat <axis = 0> (rows, w) y = Reshape (x, both)"
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    shapes = {name: shape for name, shape, _ in _types(model)}
    assert shapes["y"][1] == 8
    assert len(shapes["long"]) == 1
