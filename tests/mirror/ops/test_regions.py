from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

REGIONS = [
    [0.0, 0.0, 8.0, 6.0],
    [1.3, 2.6, 5.9, 3.1],
    [-2.5, -1.0, 3.0, 4.4],
    [4.0, 3.0, 19.0, 17.0],
    [12.0, 1.0, 14.0, 2.0],
    [5.0, 4.0, 3.0, 3.5],
    [2.0, 2.0, 2.0, 2.0],
]
IMAGES = [0, 1, 1, 0, 1, 0, 1]


def _align(attributes: str, opset: int = 16, kind: str = "float", count: int = 7):
    signature = f"{kind}[2,3,7,9] x, {kind}[{count},4] r, int64[{count}] b"
    body = f"y = RoiAlign<output_height=2, output_width=3, {attributes}>(x, r, b)"
    return parse(signature, f"{kind}[] y", body, opset)


def _pool(attributes: str, opset: int = 13, kind: str = "float") -> onnx.ModelProto:
    body = f"y = MaxRoiPool<pooled_shape=[2,3], {attributes}>(x, r)"
    return parse(f"{kind}[2,3,7,9] x, {kind}[7,5] r", f"{kind}[] y", body, opset)


def _feeds(dtype: type = np.float32) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9))
    return {"x": x.astype(dtype), "r": np.array(REGIONS, dtype), "b": np.array(IMAGES)}


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_roi_align(mode: str, ratio: int) -> None:
    for scale, coordinates in itertools.product((1.0, 0.5), ("half_pixel", "output_half_pixel")):
        attributes = f'mode="{mode}", sampling_ratio={ratio}, spatial_scale={scale}'
        newer = f'{attributes}, coordinate_transformation_mode="{coordinates}"'
        assert_like_onnxruntime(_align(newer), _feeds())
        assert_like_onnxruntime(_align(attributes, opset=10), _feeds())


def test_roi_align_without_regions() -> None:
    feeds = {**_feeds(), "r": np.zeros((0, 4), np.float32), "b": np.zeros(0, np.int64)}
    for mode in ("avg", "max"):
        (y,) = run_mirror(_align(f'mode="{mode}"', count=0), feeds)
        assert y.shape == (0, 3, 2, 3)


def test_roi_align_of_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="mode = 'sum'"):
        Mirror(ir.from_proto(_align('mode="sum"')))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients_of_roi_align(mode: str, ratio: int) -> None:
    """They reach the regions too, off the places where a sample changes its pixels."""
    regions = np.array(REGIONS[1:3]) / 2 + 0.013
    feeds = {"x": _feeds(np.float64)["x"][:, :1, :4, :5], "r": regions, "b": np.array([1, 0])}
    signature = "double[2,1,4,5] x, double[2,4] r, int64[2] b"
    attributes = f'mode="{mode}", sampling_ratio={ratio}, output_height=2'
    body = f"y = RoiAlign<{attributes}>(x, r, b)"
    assert_gradients(parse(signature, "double[] y", body, 16), feeds)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_max_roi_pool(scale: float) -> None:
    regions = np.column_stack([IMAGES, REGIONS]).astype(np.float32)
    assert_like_onnxruntime(_pool(f"spatial_scale={scale}"), {"x": _feeds()["x"], "r": regions})


def test_gradients_of_max_roi_pool() -> None:
    """The regions are rounded: no gradient arrives at them."""
    regions = np.column_stack([IMAGES, REGIONS]).astype(np.float64)
    model = _pool("spatial_scale=1.0", kind="double")
    model.graph.initializer.append(onnx.numpy_helper.from_array(regions, "r"))
    del model.graph.input[1]
    assert_gradients(model, {"x": _feeds(np.float64)["x"]}, fast=True)
