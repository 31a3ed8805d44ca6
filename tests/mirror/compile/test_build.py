"""Functions of the model and of the standard; the rest of the compiler shows in other tests."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.compile.build import compile_model

FUNCTIONS = """
<ir_version: 9, opset_import: ["": 18, "local": 1]>
g (float[2,3] x, float[3,3] w) => (float[2,3] y) {
  [first] a = local.layer <alpha = 0.5, axes = [0]> (x, w)
  [second] y = local.layer <axes = [1]> (a, w)
}
<domain: "local", opset_import: ["": 18, "local": 1]>
layer <alpha: float = 2.0, axes> (x, w) => (y) {
  bias = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
  p = MatMul(x, w)
  q = Add(p, bias)
  r = local.leaky <slope: float = @alpha> (q)
  chosen = Constant <value_ints: ints = @axes> ()
  m = ReduceMean(r, chosen)
  y = Sub(r, m)
}
<domain: "local", opset_import: ["": 18]>
leaky <slope> (x) => (y) {
  factor = Constant <value_float: float = @slope> ()
  low = Mul(x, factor)
  nothing = Constant <value_int = 0> ()
  zero = CastLike(nothing, x)
  positive = Less(zero, x)
  y = Where(positive, x, low)
}
"""


def _feeds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"x": (2, 3), "w": (3, 3)}
    return {k: generator.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def _run(mirror: Mirror, feeds: dict[str, np.ndarray]) -> np.ndarray:
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    return mirror(tensors)["y"].detach().numpy()


def test_functions_within_functions() -> None:
    model = onnx.parser.parse_model(FUNCTIONS)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = _feeds()
    (expected,) = session.run(None, feeds)
    mirror = Mirror(model)
    np.testing.assert_allclose(_run(mirror, feeds), expected, rtol=1e-5, atol=1e-6)
    # the weight inside of the function is one parameter, however often it is called
    assert list(mirror.value_parameters) == ["bias"]
    assert not any(step.host for step in mirror._program.steps)


def test_learned_weights_of_functions_are_written_back() -> None:
    mirror = Mirror(onnx.parser.parse_model(FUNCTIONS))
    with torch.no_grad():
        mirror.value_parameters["bias"].mul_(-3)
    session = onnxruntime.InferenceSession(
        ir.to_proto(mirror.to_model()).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, _feeds())
    np.testing.assert_allclose(_run(mirror, _feeds()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_graph_with_torch_compile() -> None:
    mirror = Mirror(onnx.parser.parse_model(FUNCTIONS))
    torch._dynamo.reset()
    compiled = torch.compile(mirror, fullgraph=True, backend="eager")
    tensors = {name: torch.from_numpy(array) for name, array in _feeds().items()}
    torch.testing.assert_close(compiled(tensors)["y"], mirror(tensors)["y"])


def test_values_must_be_computed_before_they_are_read() -> None:
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 18]>
        g (float[2] x) => (float[2] y) { y = Neg(a) a = Exp(x) }""")
    with pytest.raises(ModelError, match="'a' is read before it is computed"):
        compile_model(ir.from_proto(model), {}, {})


def test_functions_that_call_themselves_are_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "local": 1]>
        g (float[2] x) => (float[2] y) { [start] y = local.a (x) }
        <domain: "local", opset_import: ["local": 1]> a (x) => (y) { [on] y = local.b (x) }
        <domain: "local", opset_import: ["local": 1]> b (x) => (y) { [back] y = local.a (x) }
    """)
    with pytest.raises(ModelError, match=r"node 'start/on/back': function a calls itself"):
        Mirror(ir.from_proto(model))


def test_too_many_inputs_of_a_function_are_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "local": 1]>
        g (float[2] x) => (float[2] y) { [start] y = local.a (x, x) }
        <domain: "local", opset_import: ["": 18]> a (x) => (y) { y = Neg(x) }
    """)
    with pytest.raises(ModelError, match="node 'start' gives function a too many inputs"):
        Mirror(ir.from_proto(model))


def test_optional_inputs_and_aliases_of_functions() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "local": 1]>
        g (float[2] x) => (float[2] y, float[2] z) {
          y = local.clip (x)
          z = local.same (x)
        }
        <domain: "local", opset_import: ["": 18]> clip (x, low, high) => (y) {
          y = Clip(x, low, high)
        }
        <domain: "local", opset_import: ["": 18]> same (x) => (x) { }
    """)
    outputs = Mirror(ir.from_proto(model))(torch.tensor([1.0, -2.0]))
    assert outputs["y"].tolist() == outputs["z"].tolist() == [1.0, -2.0]


def test_operators_without_a_handler_run_by_their_definition() -> None:
    # preview operators have no handler; this one's definition is built for its inputs
    model = onnx.parser.parse_model("""
        <ir_version: 11, opset_import: ["": 24, "ai.onnx.preview": 1]>
        g (float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v) => (float[1,2,3,4] y) {
          y = ai.onnx.preview.FlexAttention (q, k, v)
        }""")
    generator = torch.Generator().manual_seed(0)
    sizes = {"q": 3, "k": 5, "v": 5}
    inputs = {name: torch.randn(1, 2, n, 4, generator=generator) for name, n in sizes.items()}
    mirror = Mirror(ir.from_proto(model))
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs.values())
    torch.testing.assert_close(mirror(inputs)["y"], expected)
    assert not mirror.value_parameters  # numbers of the definition are no weights


def test_outputs_that_nothing_reads_are_not_wanted() -> None:
    # as old exporters write it: the running statistics of a model in inference
    model = onnx.parser.parse_model("""
        <ir_version: 6, opset_import: ["": 9]>
        g (float[2,3] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[2,3] y) {
          y, mean, var, saved_mean, saved_var = BatchNormalization(x, s, b, m, v)
        }""")
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    ones, zeros = torch.ones(3), torch.zeros(3)
    mirror = Mirror(ir.from_proto(model))
    y = mirror({"x": x, "s": ones, "b": zeros, "m": zeros, "v": ones})["y"]
    torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-4)
