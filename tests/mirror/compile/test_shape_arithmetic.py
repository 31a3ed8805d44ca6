from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_like_onnxruntime

CASES = {
    "flatten": """
      s = Shape(x) n = Gather(s, zero) one = Unsqueeze(n, axis) t = Concat<axis=0>(one, rest)
      y = Reshape(x, t)""",
    "part of a shape": """
      n = Shape<start=0, end=1>(x) m = Squeeze(n) k = Mul(m, three) l = Div(k, three)
      u = Reshape(l, rest) t = Concat<axis=0>(u, rest) y = Reshape(x, t)""",
    "backward slice": """
      s = Shape(x) t = Slice(s, last, before, axis, rest) y = Reshape(x, t)""",
    "expand": """
      s = Shape(x) r = Shape(s) ones = ConstantOfShape<value=int64[1]{1}>(r) minus = Neg(ones)
      same = Equal(s, minus) t = Where(same, ones, s) y = Expand(half, t)""",
    "quotients": """
      s = Shape(x) n = Gather(s, zero) a = Sub(zero, n) b = Div(a, two) c = Neg(b)
      d = Mod(n, two) e = Add(c, d) f = Max(e, two) g = Min(f, n) u = Unsqueeze(g, axis)
      w = Concat<axis=0>(u, two_) y = Slice(x, axis_, w)""",
    "products": """
      s = Shape(x) n = ReduceProd<keepdims=0>(s, axis) m = Size(x) same = Equal(n, m)
      w = Cast<to=7>(same) k = Mul(w, n) u = Unsqueeze(k, axis) y = Reshape(x, u)""",
    "range": """
      s = Shape(x) n = Gather(s, zero) i = Range(zero, n, one_) f = Cast<to=1>(i)
      u = Unsqueeze(f, rest) v = Unsqueeze(u, rest) y = Add(x, v)""",
    "shape as data": """
      s = Shape(x) f = Cast<to=1>(s) y = Mul(x, f)""",
    "comparisons": """
      s = Shape(x) n = Gather(s, zero) a = Less(n, two) b = GreaterOrEqual(n, two) c = Or(a, b)
      d = Not(a) e = And(c, d) w = Where(e, two, one_) u = Unsqueeze(w, axis)
      t = Expand(u, one1) v = Concat<axis=0>(t, two_) y = Slice(x, axis_, v)""",
}
CONSTANTS = {
    "zero": 0,
    "one_": 1,
    "two": 2,
    "three": 3,
    "axis": [0],
    "rest": [-1],
    "last": [-1],
    "before": [-9],
    "axis_": [0, 0],
    "one1": [1],
    "two_": [2],
}


def _model(name: str) -> onnx.ModelProto:
    body = CASES[name]
    text = f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[N,M,K] x) => (float[A,B,C] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    used = {value for node in model.graph.node for value in node.input}
    for key, value in {**CONSTANTS, "half": np.float32(0.5)}.items():
        array = np.asarray(value)
        if key in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    return model


@pytest.mark.parametrize("name", list(CASES))
def test_same_as_onnxruntime_and_never_read_back(name: str) -> None:
    model = _model(name)
    for shape in ((2, 3, 4), (5, 3, 2), (1, 1, 1)) if name != "shape as data" else ((2, 2, 3),):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert_like_onnxruntime(model, {"x": x})
    mirror = Mirror(ir.from_proto(model))
    assert not any(step.host for step in mirror._program.steps)


def test_values_can_be_asked_for_as_tensors() -> None:
    mirror = Mirror(ir.from_proto(_model("products")))
    values = mirror.run(torch.zeros(2, 3, 4), ["s", "n", "same", "u"])
    assert [(value.dtype, value.tolist()) for value in values.values()] == [
        (torch.int64, [2, 3, 4]),
        (torch.int64, 24),
        (torch.bool, True),
        (torch.int64, [24]),
    ]


def test_compiles_to_one_graph_for_all_sizes() -> None:
    for name in ("flatten", "part of a shape", "expand", "range", "quotients"):
        mirror = Mirror(ir.from_proto(_model(name)))
        torch._dynamo.reset()
        compiled = torch.compile(mirror, fullgraph=True, backend="eager")
        for rows in (3, 4, 6):
            x = torch.randn(rows, 3, 2, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(compiled({"x": x})["y"], mirror(x)["y"])
