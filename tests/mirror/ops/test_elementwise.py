from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

ATTRIBUTES = ["", "<exclusive=1>", "<reverse=1>", "<exclusive=1, reverse=1>"]


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("axis", [0, -1])
def test_cumulative_sum(attributes: str, axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    model = parse("float[2,3,4] x, int64 a", "float[2,3,4] y", f"y = CumSum{attributes}(x, a)", 14)
    assert_like_onnxruntime(model, {"x": x, "a": np.array(axis)})


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_gradients_of_cumulative_products_with_zeros(attributes: str) -> None:
    x = np.array([[1.5, 0.0, -2.0], [0.5, 3.0, 0.0]])
    body = f"y = CumProd{attributes}(x, a)"
    assert_gradients(parse("double[2,3] x, int64 a", "y", body, 26), {"x": x, "a": np.array(1)})


@pytest.mark.parametrize("name", ["CumSum", "CumProd"])
def test_unsigned_integers_and_empty_axes(name: str) -> None:
    model = parse("uint64[n] x, int64[1] a", "uint64[n] y", f"y = {name}<exclusive=1>(x, a)", 26)
    (y,) = run_mirror(model, {"x": np.array([2**63, 2, 1], np.uint64), "a": np.array([0])})
    assert y.tolist() == [0, 2**63, 2**63 + 2] if name == "CumSum" else [1, 2**63, 0]
    (y,) = run_mirror(model, {"x": np.array([], np.uint64), "a": np.array([0])})
    assert y.shape == (0,)


LARGE = np.array([2**63 + 5, 7, 2**64 - 1], np.uint64)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Max(x, b)", [2**63 + 5, 2**63, 2**64 - 1]),
        ("y = Min(x, b)", [2**63, 7, 2**63]),
        ("y = Clip(x, s)", [2**63 + 5, 2**63, 2**64 - 1]),
        ("y = Clip(x, , s)", [2**63, 7, 2**63]),
        ("y = ReduceMax(x)", [2**64 - 1]),
        ("y = ReduceMin(x)", [7]),
    ],
)
def test_large_unsigned_integers_are_ordered(body: str, expected: list[int]) -> None:
    model = parse("uint64[3] x, uint64[3] b, uint64 s", "uint64[n] y", body)
    feeds = {"x": LARGE, "b": np.full(3, 2**63, np.uint64), "s": np.array(2**63, np.uint64)}
    (y,) = run_mirror(model, feeds)
    assert y.tolist() == expected


@pytest.mark.parametrize(
    "body", ["y = Log(x)", "y = Sqrt(x)", "y = Reciprocal(x)", "y = Div(o, x)", "y = Div(x, s)"]
)
def test_what_is_left_out_of_the_loss_has_no_gradient(body: str) -> None:
    model = parse("float[3] x, float[3] o, float[2,1] s", "float[m,n] y", body, 20)
    x = torch.tensor([1.0, -1.0 if "Sqrt" in body else 0.0, 4.0], requires_grad=True)
    others = {"o": torch.ones(3), "s": torch.tensor([[2.0], [0.0]], requires_grad=True)}
    y = Mirror(model)({"x": x, **others})["y"]
    known = torch.isfinite(y)
    assert not known.all()
    y[known].sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()
    scale = others["s"].grad
    assert scale is None or torch.isfinite(scale).all()


@pytest.mark.parametrize(
    "body",
    [
        "y = Clip(x, low, high)",
        "y = Clip(x, , high)",
        "y = Clip(x, inner, high)",
        "y = Pad(x, pads, low)",
        "y = CumSum(x, axis)",
        "y = Trilu(x, axis)",
    ],
)
def test_scalars_of_one_element_are_taken_as_onnxruntime_takes_them(body: str) -> None:
    constants = (
        "<float[1] low = {-0.5}, float[1] high = {0.75}, int64[4] pads = {0, 1, 1, 0}, "
        "int64[1] axis = {1}>"
    )
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[2,3] x, float[1] inner) => (float[m,n] y) {constants} {{ {body} }}"""
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    model = onnx.parser.parse_model(text)
    assert_like_onnxruntime(model, {"x": x, "inner": np.array([-0.25], np.float32)})


@pytest.mark.parametrize("name", ["Elu", "Celu", "Selu", "Elu<alpha=1.7>", "Celu<alpha=0.6>"])
def test_elu_of_small_values_has_the_few_digits_of_onnxruntime(name: str) -> None:
    x = np.linspace(-3e-6, 3e-6, 1000, dtype=np.float32)
    model = parse("float[n] x", "float[n] y", f"y = {name}(x)", 22)
    found = run_mirror(model, {"x": x})[0].numpy()
    expected = open_session(model, threads=1).run(None, {"x": x})[0]
    # Its exp is off by a digit in some places.
    assert np.mean(np.abs(found - expected) < 1e-12) > 0.98
    doubles = parse("double[n] x", "double[n] y", f"y = {name}(x)")
    assert_gradients(doubles, {"x": np.linspace(-3, 3, 10)})
