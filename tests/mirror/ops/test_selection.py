from __future__ import annotations

import numpy as np
import pytest

from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("kind", ["float", "int32", "bool"])
def test_non_zero(kind: str) -> None:
    x = np.array([[0, 1, 0], [2, 0, 3]]).astype({"float": np.float32}.get(kind, kind))
    assert_like_onnxruntime(parse(f"{kind}[2,3] x", "int64[2,n] y", "y = NonZero(x)", 13), {"x": x})


def test_non_zero_of_a_scalar_has_no_rows() -> None:
    (y,) = run_mirror(parse("float x", "int64[0,1] y", "y = NonZero(x)"), {"x": np.float32(2)})
    assert y.shape == (0, 1)


@pytest.mark.parametrize("attributes", ["", "<axis=1>", "<axis=-2>"])
def test_compress(attributes: str) -> None:
    model = parse("float[3,4] x, bool[2] c", "float y", f"y = Compress{attributes}(x, c)", 11)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": _numbers(3, 4).astype(np.float32), "c": np.array([False, True])}
    assert_like_onnxruntime(model, feeds)


@pytest.mark.parametrize("in_order", [0, 1])
@pytest.mark.parametrize("axis", ["", "axis=0, ", "axis=-1, ", "axis=1, "])
@pytest.mark.parametrize("kind", ["float", "int64"])
def test_unique(in_order: int, axis: str, kind: str) -> None:
    body = f"y, first, inverse, counts = Unique<{axis}sorted={in_order}>(x)"
    outputs = f"{kind} y, int64[k] first, int64[l] inverse, int64[m] counts"
    model = parse(f"{kind}[3,4,2] x", outputs, body, 11)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    x = np.random.default_rng(3).integers(-1, 2, (3, 4, 2))
    x[2], x[:, 3] = x[0], x[:, 1]
    assert_like_onnxruntime(model, {"x": x.astype(np.float32 if kind == "float" else np.int64)})


def test_unique_takes_nans_as_one_like_numpy() -> None:
    x = np.array([np.nan, 2, np.nan, 1, 2], np.float32)
    body = "y, first, inverse, counts = Unique(x)"
    got = run_mirror(parse("float[5] x", "y, first, inverse, counts", body), {"x": x})
    wanted = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for output, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(output.numpy(), expected)


def test_unique_orders_large_unsigned_integers() -> None:
    x = np.array([2**63 + 1, 3, 2**63 + 1], np.uint64)
    (y,) = run_mirror(parse("uint64[3] x", "uint64[2] y", "y = Unique(x)"), {"x": x})
    np.testing.assert_array_equal(y.numpy(), np.unique(x))


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_one_hot(opset: int, axis: int) -> None:
    body = f"y = OneHot<axis={axis}>(i, d, v)"
    model = parse("int64[2,3] i, int64[1] d, float[2] v", "float[a,b,c] y", body, opset)
    indices = np.array([[0, 4, 5], [9, 1, 2]])
    if opset == 11:
        indices[0, 1:] = -1, -6
    assert_like_onnxruntime(
        model, {"i": indices, "d": np.array([5]), "v": np.array([0.5, 2], np.float32)}
    )


def test_negative_indices_had_no_one_before_opset_11() -> None:
    model = parse("int64[2] i, int64 d, float[2] v", "float[2,3] y", "y = OneHot(i, d, v)", 9)
    feeds = {"i": np.array([-1, 1]), "d": np.array(3), "v": np.array([0, 1], np.float32)}
    (y,) = run_mirror(model, feeds)
    assert y.tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_reverse_sequence(axes: tuple[int, int]) -> None:
    time, batch = axes
    body = f"y = ReverseSequence<time_axis={time}, batch_axis={batch}>(x, l)"
    model = parse("float[4,4,2] x, int64[4] l", "float[4,4,2] y", body, 10)
    feeds = {"x": _numbers(4, 4, 2).astype(np.float32), "l": np.array([0, 1, 3, 4])}
    assert_like_onnxruntime(model, feeds)


def test_gradients() -> None:
    x = _numbers(4, 3)
    body = "y = ReverseSequence<time_axis=1, batch_axis=0>(x, l)"
    lengths = np.array([2, 3, 1, 0])
    assert_gradients(parse("double[4,3] x, int64[4] l", "y", body), {"x": x, "l": lengths})
    condition = np.array([True, False, True])
    compress = parse("double[4,3] x, bool[3] c", "y", "y = Compress<axis=1>(x, c)")
    assert_gradients(compress, {"x": x, "c": condition})
    body = "y, i, r, c = Unique<axis=0, sorted=0>(x)"
    assert_gradients(parse("double[4,3] x", "y", body), {"x": x})
    feeds = {"i": np.array([1, 0]), "d": np.array(3), "v": np.array([0.5, 2.0])}
    assert_gradients(parse("int64[2] i, int64 d, double[2] v", "y", "y = OneHot(i, d, v)"), feeds)
