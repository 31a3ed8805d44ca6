from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from onnx_cgmq.errors import ModelError, UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

X = np.random.default_rng(0).standard_normal((2, 3))

BRANCHES = """
  w = Constant<value = float[3] {1.0, -2.0, 3.0}>()
  y = If (c) <
    then_branch = t () => (float[2,3] r) <float[3] s = {0.5, 1.5, 2.5}> { p = Mul(x, s) r = Mul(p, w) },
    else_branch = e () => (float[2,3] r) <float[3] s = {4.0, 5.0, 6.0}> { r = Add(x, s) }
  >
"""  # noqa: E501


@pytest.mark.parametrize("condition", [True, False])
def test_branches_have_names_and_weights_of_their_own(condition: bool) -> None:
    model = parse("float[2,3] x, bool c", "float[2,3] y", BRANCHES)
    feeds = {"x": X.astype(np.float32), "c": np.array(condition)}
    assert_like_onnxruntime(model, feeds)
    mirror = Mirror(ir.from_proto(model))
    assert list(mirror.value_parameters) == ["w", "s", "s_1"]
    mirror({name: torch.from_numpy(array) for name, array in feeds.items()})["y"].sum().backward()
    reached = [name for name, weight in mirror.value_parameters.items() if weight.grad is not None]
    assert reached == (["w", "s"] if condition else ["s_1"])


def test_learned_weights_of_subgraphs_are_written_back() -> None:
    mirror = Mirror(ir.from_proto(parse("float[2,3] x, bool c", "float[2,3] y", BRANCHES)))
    with torch.no_grad():
        for weight in mirror.parameters():
            weight.mul_(3)
    written = ir.to_proto(mirror.to_model()).SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    for condition in (True, False):
        feeds = {"x": X.astype(np.float32), "c": np.array(condition)}
        (expected,) = session.run(None, feeds)
        got = mirror({name: torch.from_numpy(array) for name, array in feeds.items()})["y"]
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-6)


LOOP = """
  limit = Constant<value_int = 5>()
  top = Constant<value = {kind} {{40.0}}>()
  last, all = Loop (limit, , x) <
    body = b (int64 i, bool go, {kind}[2,3] h)
        => (bool again, {kind}[2,3] next, {kind}[2,3] seen) {{
      step = CastLike(i, h)
      a = Mul(h, w)
      next = Add(a, step)
      seen = Mul(next, next)
      norm = ReduceSum<keepdims=0>(seen)
      again = Less(norm, top)
    }}
  >
"""


def test_loop_that_ends_early() -> None:
    signature = "float[2,3] x, float[3] w"
    model = parse(signature, "float[2,3] last, float[n,2,3] all", LOOP.format(kind="float"))
    feeds = {"x": X.astype(np.float32), "w": np.array([1.0, 1.5, -1.0], np.float32)}
    _, rows = assert_like_onnxruntime(model, feeds)
    assert 1 < len(rows) < 5
    signature = "double[2,3] x, double[3] w"
    model = parse(signature, "double[2,3] last, double[n,2,3] all", LOOP.format(kind="double"))
    assert_gradients(model, {"x": X, "w": np.array([1.0, 1.5, -1.0])})


@pytest.mark.parametrize(("limit", "condition"), [(0, True), (3, False)])
def test_loop_that_does_not_run(limit: int, condition: bool) -> None:
    body = """
      last, all = Loop (limit, go, x) <
        body = b (int64 i, bool c, float[2] h) => (bool d, float[2] next, float[2] seen) {
          d = Identity(c) next = Neg(h) seen = Exp(h)
        }
      >"""
    model = parse("float[2] x, int64 limit, bool go", "float[2] last, float[n,2] all", body)
    feeds = {"x": np.float32([1, 2]), "limit": np.array(limit), "go": np.array(condition)}
    last, rows = assert_like_onnxruntime(model, feeds)
    assert rows.shape == (0, 2)
    assert last.tolist() == [1, 2]


SCAN = """
  last, ys, zs = Scan <num_scan_inputs=2, scan_input_axes=[1,0], scan_input_directions=[0,1],
                      scan_output_axes=[-1,0], scan_output_directions=[1,0],
    body = b ({kind}[2] h, {kind}[2] u, {kind}[1] v)
        => ({kind}[2] next, {kind}[2] y, {kind}[1] z) {{
      a = Mul(h, w) p = Add(a, u) next = Tanh(p) y = Mul(next, v) z = Exp(v)
    }}
  > (start, us, vs)
"""


def test_scan_axes_and_directions() -> None:
    results = "float[2] last, float[2,4] ys, float[4,1] zs"
    signature = "float[2] start, float[2,4] us, float[4,1] vs, float[2] w"
    generator = np.random.default_rng(0)
    shapes = {"start": (2,), "us": (2, 4), "vs": (4, 1), "w": (2,)}
    feeds = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    narrow = {name: array.astype(np.float32) for name, array in feeds.items()}
    assert_like_onnxruntime(parse(signature, results, SCAN.format(kind="float")), narrow)
    wide, outputs = (text.replace("float", "double") for text in (signature, results))
    assert_gradients(parse(wide, outputs, SCAN.format(kind="double")), feeds)


@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_first_form_of_scan(lengths: list[int] | None) -> None:
    body = f"""
      last, ys = Scan <num_scan_inputs=1, directions=[{int(lengths is None)}],
        body = b (float[2] h, float[2] u) => (float[2] next, float[2] y) {{
          next = Add(h, u) y = Mul(h, u)
        }}
      > ({"n" if lengths else ""}, start, us)"""
    signature = "float[2,2] start, float[2,4,2] us" + (", int64[2] n" if lengths else "")
    generator = np.random.default_rng(0)
    shapes = {"start": (2, 2), "us": (2, 4, 2)}
    feeds = {k: generator.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    model = parse(signature, "float[2,2] last, float[2,4,2] ys", body, opset=8)
    model.ir_version = 3
    if lengths:
        feeds["n"] = np.array(lengths)
    assert_like_onnxruntime(model, feeds)


NESTED = """
  big = Constant<value = float {3.0}>()
  two = Constant<value_int = 2>()
  shape = Shape(x)
  rows = Gather(shape, zero)
  y = Loop (two, , x) <
    body = outer (int64 i, bool c, float[N,2] h) => (bool d, float[N,2] next) <float[2] w = {0.5, 2.0}> {
      d = Identity(c)
      norm = ReduceMax<keepdims=0>(h)
      large = Less(norm, big)
      next = If (large) <
        then_branch = t () => (float[N,2] r) {
          r = Loop (rows, , h) <
            body = inner (int64 j, bool e, float[N,2] k) => (bool f, float[N,2] l) {
              f = Identity(e) m = Mul(k, w) s = Shape(x) n = Reshape(m, s) l = Add(n, x)
            }
          >
        },
        else_branch = u () => (float[N,2] h_out) { h_out = Identity(h) }
      >
    }
  >
"""  # noqa: E501


def test_values_from_any_level_around() -> None:
    model = parse("float[N,2] x, int64 zero", "float[N,2] y", NESTED)
    for rows in (1, 3):
        x = np.random.default_rng(0).random((rows, 2)).astype(np.float32)
        assert_like_onnxruntime(model, {"x": x, "zero": np.array(0)})
    mirror = Mirror(ir.from_proto(model))
    mirror({"x": torch.from_numpy(x), "zero": torch.tensor(0)})["y"].sum().backward()
    assert mirror.value_parameters["w"].grad is not None


def test_what_a_subgraph_lacks_is_named_with_its_place() -> None:
    body = """
      [pick] y = If (c) <
        then_branch = t () => (float[2] r) { [odd] r = com.example.Mystery(x) },
        else_branch = e () => (float[2] r) { r = Identity(x) }
      >"""
    model = parse("float[2] x, bool c", "float[2] y", body)
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedOperatorError, match=r"Mystery .*node pick/then_branch/odd"):
        Mirror(ir.from_proto(model))


def test_what_fails_in_a_subgraph_is_named_with_its_place() -> None:
    body = """
      [pick] y = If (c) <
        then_branch = t () => (float[m] r) { [sum] r = Add(x, z) },
        else_branch = e () => (float[m] r) { r = Identity(x) }
      >"""
    model = parse("float[m] x, float[n] z, bool c", "float[m] y", body)
    feeds = {"x": np.float32([1, 2]), "z": np.float32([1, 2, 3]), "c": np.array(True)}
    with pytest.raises(ModelError, match="Add node 'pick/then_branch/sum'"):
        run_mirror(model, feeds)
