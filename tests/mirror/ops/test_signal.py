from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_cgmq.errors import ModelError
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _assert_like_reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    wanted = ReferenceEvaluator(model).run(None, feeds)
    for got, expected in zip(run_mirror(model, feeds), wanted, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("length", [None, 4, 7, 8])
@pytest.mark.parametrize(
    ("parts", "inverse", "onesided"), [(1, 0, 0), (2, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)]
)
def test_dft(opset, axis, length, parts, inverse, onesided) -> None:
    attributes = f"inverse={inverse}, onesided={onesided}"
    feeds = {"x": _numbers(2, 6, 5, parts)}
    signature, inputs = f"float[2,6,5,{parts}] x", "x"
    if length is not None:
        feeds["n"], signature, inputs = np.array(length), signature + ", int64 n", "x, n"
    if opset == 17:
        body = f"y = DFT<axis={axis}, {attributes}>({inputs})"
    else:
        feeds["a"], signature = np.array(axis), signature + ", int64 a"
        body = f"y = DFT<{attributes}>({inputs if length is not None else 'x, '}, a)"
    model = parse(signature, "float[a,b,c,d] y", body.replace("x, , a", "x, , a"), opset)
    _assert_like_reference(model, feeds)
    if not (inverse and onesided):
        assert_like_onnxruntime(model, feeds)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("length", [None, 7])
@pytest.mark.parametrize("windowed", [False, True])
def test_stft(onesided: int, length: int | None, windowed: bool) -> None:
    feeds = {"x": _numbers(2, 25, 1), "step": np.array(3)}
    signature = "float[2,25,1] x, int64 step"
    inputs = "x, step"
    if windowed:
        feeds["w"], signature = _numbers(7), signature + ", float[7] w"
    if length is not None:
        feeds["n"], signature = np.array(length), signature + ", int64 n"
    inputs += {(0, 0): "", (1, 0): ", w", (0, 1): ", , n", (1, 1): ", w, n"}[windowed, bool(length)]
    body = f"y = STFT<onesided={onesided}>({inputs})"
    model = parse(signature, "float[a,b,c,d] y", body, 17)
    _assert_like_reference(model, feeds)
    if windowed or length:
        assert_like_onnxruntime(model, feeds)


def test_stft_of_a_complex_signal() -> None:
    model = parse(
        "float[1,16,2] x, int64 step, float[8] w",
        "float[a,b,c,d] y",
        "y = STFT<onesided=0>(x, step, w)",
        17,
    )
    _assert_like_reference(model, {"x": _numbers(1, 16, 2), "step": np.array(4), "w": _numbers(8)})


def test_a_onesided_transform_of_a_complex_signal_is_an_error() -> None:
    model = parse("float[1,6,2] x", "y", "y = DFT<axis=1, onesided=1>(x)", 17)
    with pytest.raises(ModelError, match="real signal"):
        run_mirror(model, {"x": _numbers(1, 6, 2)})


@pytest.mark.parametrize("name", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [2, 9, 400])
def test_windows(name: str, periodic: int, size: int) -> None:
    model = parse("int64 n", "float[k] y", f"y = {name}<periodic={periodic}>(n)", 17)
    assert_like_onnxruntime(model, {"n": np.array(size)})


@pytest.mark.parametrize(
    ("bands", "length", "rate", "low", "high"),
    [
        (8, 16, 8192, 0, 4096),
        (40, 400, 16000, 20, 7600),
        (80, 512, 16000, 0, 8000),
        (128, 64, 22050, 50, 11000),
        (5, 33, 1000, 10, 450),
    ],
)
def test_mel_weights(bands: int, length: int, rate: int, low: float, high: float) -> None:
    model = parse(
        "int64 bands, int64 length, int64 rate, float low, float high",
        "float[a,b] y",
        "y = MelWeightMatrix(bands, length, rate, low, high)",
        17,
    )
    feeds = {"bands": np.array(bands), "length": np.array(length), "rate": np.array(rate)}
    feeds |= {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    assert_like_onnxruntime(model, feeds)


def test_gradients() -> None:
    x = _numbers(2, 6, 2).astype(np.float64)
    for attributes in ("inverse=1", "inverse=1, onesided=1", "inverse=0"):
        body = f"y = DFT<axis=1, {attributes}>(x)"
        assert_gradients(parse("double[2,6,2] x", "y", body, 17), {"x": x})
    signature = "double[2,6,1] x, int64 step, double[4] w"
    feeds = {"x": x[..., :1], "step": np.array(1), "w": x[0, :4, 0]}
    assert_gradients(parse(signature, "y", "y = STFT(x, step, w)", 17), feeds)
