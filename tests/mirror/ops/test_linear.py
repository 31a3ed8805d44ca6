"""Einsum and Det against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnx_cgmq.mirror.core.registry import Context
from onnx_cgmq.mirror.ops.linear import einsum
from tests.support.referee import assert_gradients, parse, run_mirror

CASES = [
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("...ij, ...jk -> ...ik", [(2, 1, 3, 4), (3, 4, 5)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("bA,Bb", [(2, 3), (4, 2)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("i...->...", [(2, 3, 4)]),
    ("i,j", [(2,), (3,)]),
    (",ij->ij", [(), (2, 3)]),
    ("abc,cd->abd", [(2, 3, 4), (4, 5)]),
]


@pytest.mark.parametrize(("equation", "shapes"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "uint32", "int64"])
def test_same_as_numpy(equation: str, shapes: list[tuple[int, ...]], dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.integers(0, 9, shape)).astype(dtype) for shape in shapes]
    expected = np.einsum(equation, *(array.astype(np.int64) for array in arrays)).astype(dtype)
    context = Context("n", "Einsum", 12, {"equation": equation})
    got = einsum(context, *(torch.from_numpy(array) for array in arrays))
    assert got.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_determinants(kind: str) -> None:
    matrices = np.random.default_rng(0).standard_normal((2, 3, 3))
    dtype = {"float": np.float32, "double": np.float64}.get(kind, np.float16)
    model = parse(f"{kind}[2,3,3] x", f"{kind}[2] y", "y = Det(x)")
    (y,) = run_mirror(model, {"x": matrices.astype(dtype)})
    assert y.numpy().dtype == dtype
    np.testing.assert_allclose(y.numpy(), np.linalg.det(matrices), rtol=1e-2)
    if kind == "double":
        assert_gradients(model, {"x": matrices})
