"""Resize and Upsample against onnxruntime, which knows all modes, if not for every rank."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import ModelError, UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
MODES = (
    "nearest",
    'nearest", nearest_mode="round_prefer_ceil',
    'nearest", nearest_mode="floor',
    'nearest", nearest_mode="ceil',
    "linear",
    "cubic",
    'cubic", exclude_outside=1, cubic_coeff_a=-0.5, nearest_mode="floor',
    'linear", antialias=1, nearest_mode="floor',
    'cubic", antialias=1, nearest_mode="floor',
    'cubic", antialias=1, exclude_outside=1, nearest_mode="floor',
)
SCALES = ((2.0, 3.0), (0.5, 0.6), (1.7, 1.0), (0.3, 2.5))
SIZES = ((14, 10), (3, 1), (1, 20))
REGION = "{0.0, 0.0, 0.2, -0.1, 1.0, 1.0, 0.8, 1.1}"
X = "float[2,3,7,5] x"


def _model(attributes: str, *, scales: str = "", sizes: str = "", signature: str = X, opset=19):
    constants, names = "", {"r": "", "s": "", "z": ""}
    if "tf_crop" in attributes:
        constants, names["r"] = f"r = Constant<value = float[8] {REGION}>() ", "r"
    if scales:
        count = scales.count(",") + 1
        constants += f"s = Constant<value = float[{count}] {{{scales}}}>() "
        names["s"] = "s"
    if sizes:
        count = sizes.count(",") + 1
        constants += f"z = Constant<value = int64[{count}] {{{sizes}}}>() "
        names["z"] = "z"
    inputs = f"x, {names['r']}, {names['s']}" + (f", {names['z']}" if sizes else "")
    kind = signature.split("[", maxsplit=1)[0]
    return parse(signature, f"{kind}[] y", f"{constants} y = Resize<{attributes}>({inputs})", opset)


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _assert_same(model: onnx.ModelProto) -> None:
    shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert_like_onnxruntime(model, {"x": _image(*shape)})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_modes(mode: str, coordinates: str) -> None:
    attributes = f'mode="{mode}", coordinate_transformation_mode="{coordinates}"'
    for height, width in SCALES:
        if width != 1.0 or "tf_crop" not in coordinates:
            _assert_same(_model(attributes, scales=f"1.0, 1.0, {height}, {width}"))
    for height, width in SIZES:
        _assert_same(_model(attributes, sizes=f"2, 3, {height}, {width}"))


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_sizes_of_some_axes(mode: str, policy: str) -> None:
    attributes = f'mode="{mode}", axes=[3, 2], keep_aspect_ratio_policy="{policy}"'
    for sizes in ("9, 12", "4, 20", "2, 3"):
        _assert_same(_model(attributes, sizes=sizes))


def test_scales_of_negative_axes() -> None:
    plain = _model('mode="linear"', scales="1.0, 1.0, 1.5, 2.0")
    negative = _model('mode="linear", axes=[-1, -2]', scales="2.0, 1.5")
    x = torch.from_numpy(_image(2, 3, 7, 5))
    got, expected = (Mirror(ir.from_proto(model))(x)["y"] for model in (negative, plain))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("factor", range(2, 17))
def test_repeated_pixels(factor: int) -> None:
    attributes = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
    for body in (attributes, 'mode="nearest"'):
        model = _model(body, scales=f"1.0, 1.0, {factor}.0", signature="float[1,1,99] x")
        x = torch.arange(99.0).reshape(1, 1, 99)
        got = Mirror(ir.from_proto(model))(x)["y"]
        torch.testing.assert_close(got, x.repeat_interleave(factor, dim=-1), rtol=0, atol=0)


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize(
    ("signature", "scales"),
    [
        ("float[4,5] x", "2.0, 1.5"),
        ("float[3,4,5] x", "2.0, 0.5, 1.5"),
        ("float[2,3,4,5] x", "1.0, 2.0, 1.5, 1.0"),
        ("float[1,2,3,4,5] x", "1.0, 1.0, 2.0, 3.0, 2.0"),
        ("float[1,2,3,4,5] x", "1.0, 1.0, 0.7, 1.6, 2.0"),
    ],
)
def test_ranks(signature: str, scales: str, coordinates: str) -> None:
    for mode in ("nearest", "linear"):
        attributes = f'mode="{mode}", coordinate_transformation_mode="{coordinates}"'
        _assert_same(_model(attributes, scales=scales, signature=signature))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", ["1.0, 1.0, 2.0, 2.0", "1.0, 1.0, 1.3, 3.0"])
def test_before_opset_11(mode: str, scales: str) -> None:
    constant = f"s = Constant<value = float[4] {{{scales}}}>()"
    _assert_same(parse(X, "float[] y", f'y = Upsample<mode="{mode}", scales=[{scales}]>(x)', 7))
    _assert_same(parse(X, "float[] y", f'{constant} y = Upsample<mode="{mode}">(x, s)', 9))
    for factors in (scales, "1.0, 1.0, 0.6, 0.5"):
        constant = f"s = Constant<value = float[4] {{{factors}}}>()"
        _assert_same(parse(X, "float[] y", f'{constant} y = Resize<mode="{mode}">(x, s)', 10))


def test_empty_inputs_count_as_omitted() -> None:
    body = (
        "r = Constant<value = float[0] {}>() s = Constant<value = float[0] {}>() "
        'z = Constant<value = int64[4] {2,3,9,9}>() y = Resize<mode="linear">(x, r, s, z)'
    )
    _assert_same(parse(X, "float[] y", body, 11))


def test_a_mode_of_opset_11_alone() -> None:
    attributes = 'mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn"'
    for sizes in ("2, 3, 9, 9", "2, 3, 4, 3"):
        body = (
            "s = Constant<value = float[0] {}>() "
            f"z = Constant<value = int64[4] {{{sizes}}}>() y = Resize<{attributes}>(x, s, s, z)"
        )
        _assert_same(parse(X, "float[] y", body, 11))


def test_sizes_from_the_graph() -> None:
    body = 'z = Shape(like) y = Resize<mode="linear">(x, , , z)'
    model = parse(f"{X}, float[a,b,c,d] like", "float[] y", body, 13)
    assert_like_onnxruntime(model, {"x": _image(2, 3, 7, 5), "like": _image(2, 3, 4, 9)})


@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_integers_keep_their_type(kind: str) -> None:
    model = _model('mode="nearest"', scales="1.0, 1.0, 1.7, 2.0", signature=f"{kind}[1,1,7,5] x")
    x = np.arange(35, dtype=kind).reshape(1, 1, 7, 5)
    assert_like_onnxruntime(model, {"x": x})
    model = _model('mode="linear"', scales="1.0, 1.0, 1.7, 2.0", signature=f"{kind}[1,1,7,5] x")
    with pytest.raises(UnsupportedOperatorError, match="round differently"):
        Mirror(ir.from_proto(model))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('mode="area"', "mode = 'area'"),
        ('coordinate_transformation_mode="corners"', "mode = 'corners'"),
        ("antialias=1", "antialias"),
    ],
)
def test_unknown_modes_are_refused(attributes: str, reason: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=reason):
        Mirror(ir.from_proto(_model(attributes, scales="1.0, 1.0, 2.0, 2.0")))


def test_a_region_that_onnxruntime_ignores_is_refused() -> None:
    crop = 'mode="linear", coordinate_transformation_mode="tf_crop_and_resize"'
    mirror = Mirror(ir.from_proto(_model(crop, sizes="2, 3, 7, 4")))
    with pytest.raises(ModelError, match="axis 2 keeps its length"):
        mirror(torch.zeros(2, 3, 7, 5))


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "tf_crop_and_resize"])
def test_gradients(coordinates: str) -> None:
    modes = ("nearest", "linear", 'cubic", antialias=1, nearest_mode="floor')
    for mode, sizes in itertools.product(modes, ("1, 1, 8, 3", "1, 1, 6, 7")):
        attributes = f'mode="{mode}", coordinate_transformation_mode="{coordinates}"'
        model = _model(attributes, sizes=sizes, signature="double[1,1,4,5] x")
        assert_gradients(model, {"x": _image(1, 1, 4, 5).astype(np.float64)})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_one_graph_for_the_compiler(mode: str) -> None:
    torch._dynamo.reset()
    mirror = Mirror(ir.from_proto(_model(f'mode="{mode}"', scales="1.0, 1.0, 1.7, 2.0")))
    x = torch.from_numpy(_image(2, 3, 7, 5))
    compiled = torch.compile(mirror, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x)["y"], mirror(x)["y"])
