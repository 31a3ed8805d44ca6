from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from tests.support.referee import assert_like_onnxruntime, parse

KINDS = [("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8")]


def _codes(kind: str, *shape: int, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(kind)
    generator = np.random.default_rng(seed)
    return generator.integers(limits.min, limits.max + 1, shape).astype(kind)


def _weights(kind: str, *shape: int) -> np.ndarray:
    """INT8 weights of 7 bits: without VNNI onnxruntime's sums of UINT8 x INT8 can saturate."""
    codes = _codes(kind, *shape, seed=1)
    return codes // 2 if kind == "int8" else codes


def _scale(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(("a", "b"), KINDS)
@pytest.mark.parametrize("columns", [1, 4])
def test_matmul_integer(a: str, b: str, columns: int) -> None:
    signature = f"{a}[2,3,5] a, {b}[5,4] b, {a} u, {b}[{columns}] v"
    model = parse(signature, "int32[2,3,4] y", "y = MatMulInteger(a, b, u, v)", 10)
    feeds = {"a": _codes(a, 2, 3, 5), "b": _weights(b, 5, 4), "u": np.array(7, a)}
    assert_like_onnxruntime(model, {**feeds, "v": _codes(b, columns, seed=1)})


@pytest.mark.parametrize(("a", "b"), KINDS)
def test_qlinear_matmul(a: str, b: str) -> None:
    signature = f"{a}[6,40] a, float s, {a} u, {b}[40,7] b, float[7] t, {b}[7] v, float q, {a} w"
    body = "y = QLinearMatMul(a, s, u, b, t, v, q, w)"
    model = parse(signature, f"{a}[6,7] y", body, 10)
    feeds = {"a": _codes(a, 6, 40), "s": np.float32(0.02), "u": np.array(3, a)}
    feeds |= {"b": _weights(b, 40, 7), "t": _scale(*np.linspace(0.01, 0.03, 7))}
    feeds |= {"v": np.full(7, 2, b), "q": np.float32(0.7), "w": np.array(9, a)}
    assert_like_onnxruntime(model, {name: np.asarray(value) for name, value in feeds.items()})


@pytest.mark.parametrize(("x", "w"), KINDS[:2])
def test_conv_integer(x: str, w: str) -> None:
    signature = f"{x}[2,4,7,6] x, {w}[6,2,3,2] w, {x} u, {w} v"
    body = "y = ConvInteger<group=2, pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, w, u, v)"
    model = parse(signature, "int32[a,b,c,d] y", body, 10)
    feeds = {"x": _codes(x, 2, 4, 7, 6), "w": _weights(w, 6, 2, 3, 2)}
    assert_like_onnxruntime(model, {**feeds, "u": np.array(5, x), "v": np.array(3, w)})


@pytest.mark.parametrize(("x", "w"), KINDS)
@pytest.mark.parametrize("biased", [False, True])
def test_qlinear_conv(x: str, w: str, biased: bool) -> None:
    """Weights are initializers here: onnxruntime takes their zero points from constants only."""
    feeds = {"x": _codes(x, 2, 3, 8, 8)}
    weight = _weights(w, 4, 3, 3, 3)
    zero = ",".join("0" if w == "int8" else "130" for _ in range(4))
    text = f"""<ir_version: 10, opset_import: ["": 21]> g ({x}[2,3,8,8] x) => ({x}[2,4,8,8] y)
      <float xs = {{0.02}}, {x} xz = {{4}}, {w}[4,3,3,3] w = {{{",".join(map(str, weight.flat))}}},
       float[4] ws = {{0.01,0.02,0.005,0.03}}, {w}[4] wz = {{{zero}}}, float ys = {{0.5}},
       {x} yz = {{7}}, int32[4] b = {{300,-4000,20000,0}}> {{
        y = QLinearConv<pads=[1,1,1,1]>(x, xs, xz, w, ws, wz, ys, yz{", b" if biased else ""})
    }}"""
    assert_like_onnxruntime(onnx.parser.parse_model(text), feeds)
