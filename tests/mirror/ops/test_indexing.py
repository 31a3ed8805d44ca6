from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.support.referee import parse, run_mirror

INDICES = "i = Constant<value = int64[2,2] {1,0,-1,0}>()"


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
@pytest.mark.parametrize(
    "body",
    [
        f"{INDICES} y = Gather<axis=1>(x, i)",
        f"{INDICES} y = GatherElements<axis=1>(x, i)",
        f"{INDICES} y = GatherND(x, i)",
        "y = Trilu<upper=0>(x)",
        "s = Constant<value_ints=[2]>() e = Constant<value_ints=[-9]>() "
        "a = Constant<value_ints=[1]>() t = Constant<value_ints=[-1]>() y = Slice(x, s, e, a, t)",
        "k = Constant<value_ints=[2]>() y, at = TopK(x, k)",
        "y = Concat<axis=0>(x, x)",
        "y = EyeLike(x)",
    ],
)
def test_wide_unsigned_integers(kind: str, body: str) -> None:
    x = np.array([[3, 1, 2], [7, 9, 8]], kind) * (np.iinfo(kind).max // 9)
    model = parse(f"{kind}[2,3] x", f"{kind} y", body)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (y,) = run_mirror(model, {"x": x})
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert y.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(y.numpy(), expected)
