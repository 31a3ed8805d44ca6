from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

from onnx_cgmq.errors import ModelError, UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror

PADDINGS = ("zeros", "border", "reflection")
SETTINGS = list(itertools.product(PADDINGS, (0, 1)))


def _model(
    mode: str, padding: str, corners: int, sizes: tuple[int, ...], opset: int = 20, kind="float"
) -> onnx.ModelProto:
    x = ",".join(map(str, (2, 3, *sizes)))
    grid = ",".join(map(str, (2, *(3,) * len(sizes), len(sizes))))
    attributes = f'mode="{mode}", padding_mode="{padding}", align_corners={corners}'
    return parse(
        f"{kind}[{x}] x, {kind}[{grid}] g",
        f"{kind}[] y",
        f"y = GridSample<{attributes}>(x, g)",
        opset,
    )


def _feeds(sizes: tuple[int, ...], dtype: type = np.float32) -> dict[str, np.ndarray]:
    """An image, and positions of which half lie outside and many between two pixels."""
    rng = np.random.default_rng(0)
    grid = rng.integers(-16, 17, (2, *(3,) * len(sizes), len(sizes))) / 8
    grid[1] = rng.uniform(-2, 2, grid[1].shape)
    return {"x": rng.standard_normal((2, 3, *sizes)).astype(dtype), "g": grid.astype(dtype)}


@pytest.mark.parametrize(("padding", "corners"), SETTINGS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_images(mode: str, padding: str, corners: int) -> None:
    for sizes in ((4, 5), (1, 3)):
        assert_like_onnxruntime(_model(mode, padding, corners, sizes), _feeds(sizes))
    older = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    assert_like_onnxruntime(_model(older, padding, corners, (4, 5), opset=16), _feeds((4, 5)))


@pytest.mark.parametrize(("padding", "corners"), SETTINGS)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_volumes(mode: str, padding: str, corners: int) -> None:
    assert_like_onnxruntime(_model(mode, padding, corners, (2, 4, 3)), _feeds((2, 4, 3)))


@pytest.mark.parametrize(("padding", "corners"), SETTINGS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_ranks_that_no_kernel_has(mode: str, padding: str, corners: int) -> None:
    """A line is an image of one row; a volume of one layer is an image."""
    feeds = _feeds((5,))
    (got,) = run_mirror(_model(mode, padding, corners, (5,)), feeds)
    middle = np.zeros_like(feeds["g"])
    flat = {"x": feeds["x"][:, :, None], "g": np.concatenate([feeds["g"], middle], -1)[:, None]}
    signature = "float[2,3,1,5] x, float[2,1,3,2] g"
    attributes = f'mode="{mode}", padding_mode="{padding}", align_corners={corners}'
    image = parse(signature, "float[] y", f"y = GridSample<{attributes}>(x, g)", 20)
    if mode == "cubic" and padding == "zeros":
        return  # the rows of zeros around it would count
    torch.testing.assert_close(got, run_mirror(image, flat)[0][:, :, 0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cubic_volume_of_equal_layers_is_an_image(axis: int) -> None:
    image = _feeds((5, 6))
    layers = np.repeat(np.expand_dims(image["x"], 2 + axis), 7, axis=2 + axis)
    middle = np.full((*image["g"].shape[:-1], 1), 0.1, np.float32)
    inner = np.split(image["g"], 2, axis=-1)
    grid = np.concatenate([*inner[: 2 - axis], middle, *inner[2 - axis :]], -1)
    (got,) = run_mirror(
        _model("cubic", "border", 1, layers.shape[2:]),
        {"x": layers, "g": np.repeat(grid[:, None], 3, axis=1)},
    )
    (expected,) = run_mirror(_model("cubic", "border", 1, (5, 6)), image)
    torch.testing.assert_close(got, expected[:, :, None].expand_as(got))


def test_integers_are_cut_off() -> None:
    x = torch.arange(12, dtype=torch.int32).reshape(1, 1, 3, 4)
    grid = torch.rand(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    model = parse("int32[1,1,3,4] x, float[1,2,2,2] g", "int32[] y", "y = GridSample(x, g)", 20)
    (got,) = run_mirror(model, {"x": x.numpy(), "g": grid.numpy()})
    expected = functional.grid_sample(x.to(torch.float32), grid, align_corners=False)
    assert torch.equal(got, expected.to(torch.int32))


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [
        ("linear", (5,)),
        ("linear", (4, 5)),
        ("linear", (2, 3, 4)),
        ("cubic", (5,)),
        ("cubic", (4, 5)),
    ],
)
def test_gradients(mode: str, sizes: tuple[int, ...]) -> None:
    feeds = _feeds(sizes, np.float64)
    feeds["g"] = np.random.default_rng(1).uniform(-0.9, 0.9, feeds["g"].shape)
    assert_gradients(_model(mode, "border", 1, sizes, kind="double"), feeds, fast=True)


def test_unknown_modes_are_refused() -> None:
    for mode, padding in (("area", "zeros"), ("linear", "wrap")):
        with pytest.raises(UnsupportedOperatorError, match="mode"):
            Mirror(ir.from_proto(_model(mode, padding, 0, (4, 5))))


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("sizes", [(3, 4), (2, 3, 5)])
def test_affine_grid(corners: int, sizes: tuple[int, ...]) -> None:
    rank = len(sizes)
    signature = f"float[2,{rank},{rank + 1}] theta, int64[{rank + 2}] size"
    body = f"y = AffineGrid<align_corners={corners}>(theta, size)"
    theta = np.random.default_rng(0).standard_normal((2, rank, rank + 1))
    feeds = {"theta": theta.astype(np.float32), "size": np.array([2, 3, *sizes])}
    assert_like_onnxruntime(parse(signature, "float[] y", body, 20), feeds)
    signature = signature.replace("float", "double")
    feeds["theta"] = theta
    assert_gradients(parse(signature, "double[] y", body, 20), feeds)


def test_affine_grid_of_one_pixel() -> None:
    feeds = {"t": np.eye(2, 3, dtype=np.float32)[None], "z": np.array([1, 1, 1, 4])}
    for corners in (0, 1):
        body = f"y = AffineGrid<align_corners={corners}>(t, z)"
        model = parse("float[1,2,3] t, int64[4] z", "float[] y", body, 20)
        if corners:
            with pytest.raises(ModelError, match="one pixel"):
                run_mirror(model, feeds)
        else:
            assert_like_onnxruntime(model, feeds)
