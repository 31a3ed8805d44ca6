from __future__ import annotations

import numpy as np
import pytest

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
