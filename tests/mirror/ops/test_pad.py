from __future__ import annotations

import numpy as np
import pytest

from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse


@pytest.mark.parametrize("kind", ["float", "int32", "bool"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [("", [4, 7, 1]), ("<axes=[1]>", [8]), ("<axes=[-1, 0]>", [6, 2]), ("<axes=[2, 1]>", [1, 6])],
)
def test_center_crop_pad(axes: str, shape: list[int], kind: str) -> None:
    body = f"y = CenterCropPad{axes}(x, s)"
    model = parse(f"{kind}[5,4,3] x, int64[{len(shape)}] s", f"{kind}[] y", body, 18)
    dtype = {"float": np.float32}.get(kind, kind)
    x = (np.arange(60).reshape(5, 4, 3) % 7).astype(dtype)
    feeds = {"x": x, "s": np.array(shape)}
    if kind == "float":
        assert_gradients(
            parse(f"double[5,4,3] x, int64[{len(shape)}] s", "double[] y", body, 18),
            {**feeds, "x": x.astype(np.float64)},
        )
    assert_like_onnxruntime(model, feeds)
