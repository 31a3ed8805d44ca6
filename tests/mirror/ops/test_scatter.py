from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

REDUCTIONS = ["none", "add", "mul", "max", "min"]


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["float", "int32", "uint8", "double"])
def test_scatter_elements(reduction: str, kind: str) -> None:
    body = f'y = ScatterElements<axis=-1, reduction="{reduction}">(x, i, u)'
    model = parse(f"{kind}[3,5] x, int64[2,3] i, {kind}[2,3] u", f"{kind}[3,5] y", body, 18)
    dtype = {"float": np.float32, "double": np.float64}.get(kind, kind)
    indices = np.array([[0, -1, 2], [-5, 3, 1]])
    if reduction != "none":
        indices[0, 2] = 0
    feeds = {"x": _numbers(3, 5) * 5, "u": _numbers(2, 3) * 7}
    feeds = {name: np.abs(value).astype(dtype) for name, value in feeds.items()}
    assert_like_onnxruntime(model, {**feeds, "i": indices})


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_nd(reduction: str, depth: int) -> None:
    shape = (4, 3, 2)
    indices = np.array([[0, -1, 1], [-2, 0, 0], [3, 1, -2]])[:, :depth]
    indices = indices if reduction == "none" else np.concatenate([indices, indices[:1]])
    updates = (len(indices), *shape[depth:])
    body = f'y = ScatterND<reduction="{reduction}">(x, i, u)'
    model = parse(f"float[4,3,2] x, int64[m,{depth}] i, float[m] u", "float[4,3,2] y", body, 18)
    model.graph.input[2].type.tensor_type.ClearField("shape")
    feeds = {
        "x": _numbers(*shape).astype(np.float32),
        "i": indices,
        "u": np.random.default_rng(1).standard_normal(updates).astype(np.float32),
    }
    assert_like_onnxruntime(model, feeds)


def test_scatter_before_opset_11() -> None:
    model = parse("float[3] x, int64[2] i, float[2] u", "float[3] y", "y = Scatter(x, i, u)", 9)
    feeds = {"x": np.zeros(3, np.float32), "i": np.array([2, 0]), "u": np.ones(2, np.float32)}
    assert_like_onnxruntime(model, feeds)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_reach_data_and_updates(reduction: str) -> None:
    nd = f'y = ScatterND<reduction="{reduction}">(x, i, u)'
    elements = f'y = ScatterElements<reduction="{reduction}">(x, i, u)'
    feeds = {"x": _numbers(4, 2), "i": np.array([[0], [2]]), "u": _numbers(2, 2) + 0.5}
    assert_gradients(parse("double[4,2] x, int64[2,1] i, double[2,2] u", "y", nd, 18), feeds)
    feeds["i"] = np.array([[0, 3], [2, 1]])
    assert_gradients(parse("double[4,2] x, int64[2,2] i, double[2,2] u", "y", elements, 18), feeds)


@pytest.mark.parametrize(
    ("kind", "reduction", "x", "u", "expected"),
    [
        ("uint64", "max", [2**63 + 1, 5, 7], [3, 2**64 - 1], [2**63 + 1, 5, 2**64 - 1]),
        ("uint64", "none", [1, 5, 7], [3, 2**64 - 1], [3, 5, 2**64 - 1]),
        ("uint16", "add", [65535, 5, 7], [1, 3], [0, 5, 10]),
        ("bool", "add", [True, False, False], [True, True], [True, False, True]),
        ("bool", "mul", [True, False, True], [True, False], [True, False, False]),
    ],
)
def test_types_that_torch_barely_knows(kind: str, reduction: str, x, u, expected) -> None:
    body = f'y = ScatterElements<reduction="{reduction}">(x, i, u)'
    model = parse(f"{kind}[3] x, int64[2] i, {kind}[2] u", f"{kind}[3] y", body, 18)
    dtype = np.dtype(kind)
    feeds = {"x": np.array(x, dtype), "i": np.array([0, 2]), "u": np.array(u, dtype)}
    (y,) = run_mirror(model, feeds)
    np.testing.assert_array_equal(y.numpy(), np.array(expected, dtype))


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_an_index_out_of_range_is_an_error(reduction: str) -> None:
    body = f'y = ScatterND<reduction="{reduction}">(x, i, u)'
    model = parse("float[2,3] x, int64[1,2] i, float[1] u", "float[2,3] y", body, 18)
    feeds = {"x": np.zeros((2, 3), np.float32), "i": np.array([[0, 3]])}
    with pytest.raises(ModelError, match="ScatterND"):
        run_mirror(model, {**feeds, "u": np.ones(1, np.float32)})


def test_data_is_not_changed() -> None:
    model = parse("float[2] x, int64[1] i, float[1] u", "y", "y = ScatterElements(x, i, u)", 18)
    x = torch.zeros(2)
    Mirror(ir.from_proto(model))({"x": x, "i": torch.tensor([1]), "u": torch.ones(1)})
    assert x.eq(0).all()
