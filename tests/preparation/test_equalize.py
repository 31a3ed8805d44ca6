from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

import onnx_cgmq as cgmq
from onnx_cgmq.contract.decisions import Verdict, collected_decisions
from onnx_cgmq.data.source import open_data
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.equalize import equalize
from onnx_cgmq.preparation.prepare import prepare

IMAGE = "(float[n,4,8,8] x) => (float[n,k,a,b] y)"
ROWS = "(float[n,6,4] x) => (float[n,6,k] y)"
VECTORS = "(float[n,4] x) => (float[n,k] y)"


def build(signature: str, nodes: str, **arrays: np.ndarray) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g {signature} {{ {nodes} }}'
    model = parser.parse_model(text)
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    return model


def samples(model: onnx.ModelProto, count: int = 16) -> np.ndarray:
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(7).normal(size=(count, *sizes)).astype(np.float32)


def outputs(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    return open_session(model, optimize=False).run(None, {"x": x})


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def uneven(array: np.ndarray, axis: int = 0) -> np.ndarray:
    """An array of which one channel in three reaches a hundred times as far as the others."""
    factors = np.where(np.arange(array.shape[axis]) % 3 == 0, 100.0, 1.0)
    return array * np.expand_dims(factors, [i for i in range(array.ndim) if i != axis])


def moved(proto: onnx.ModelProto) -> dict[str, str]:
    """The nodes whose factors moved, with the reasons. Outputs must be the same to the bit."""
    plain, x = prepare(proto), samples(proto)
    with collected_decisions() as found:
        equalized = equalize(plain, x)
    onnx.checker.check_model(ir.to_proto(equalized), full_check=True)
    for old, new in zip(outputs(plain, x), outputs(equalized, x), strict=True):
        np.testing.assert_array_equal(new, old)
    return {d.name: d.reason for d in found if d.verdict is Verdict.REWRITTEN}


def left(proto: onnx.ModelProto) -> dict[str, str]:
    """The nodes whose factors stay, with the reasons. No constant changes."""
    plain = prepare(proto)
    with collected_decisions() as found:
        equalized = equalize(plain, samples(proto))
    for name, value in plain.graph.initializers.items():
        same = equalized.graph.initializers[name].const_value
        np.testing.assert_array_equal(same.numpy(), value.const_value.numpy())
    assert not [d for d in found if d.verdict is Verdict.REWRITTEN]
    return {d.name: d.reason for d in found}


CONV = {"w": uneven(weights(6, 4, 3, 3)), "b": uneven(weights(6))}
NEXT = {"v": weights(5, 6, 3, 3, seed=1)}
DENSE = {"w": uneven(weights(4, 6), 1), "b": uneven(weights(6)), "v": weights(6, 5, seed=1)}
NORM = {"g": uneven(weights(4)), "b": uneven(weights(4)), "v": weights(4, 5)}

SITES = {
    "Conv, Relu": (IMAGE, "c = Conv(x, w, b) r = Relu(c) y = Conv(r, v)", CONV | NEXT),
    "depthwise Conv": (
        IMAGE,
        "c = Conv(x, w, b) y = Conv<group = 6>(c, v)",
        CONV | {"v": weights(6, 1, 3, 3)},
    ),
    "groups, Clip, MaxPool": (
        IMAGE,
        "z = Constant<value_float = 0.0>() c = Conv(x, w, b) r = Clip(c, z) "
        "p = MaxPool<kernel_shape = [2, 2]>(r) y = Conv<group = 2>(p, v)",
        CONV | {"v": weights(4, 3, 2, 2)},
    ),
    "ConvTranspose, LeakyRelu": (
        IMAGE,
        "c = ConvTranspose(x, w, b) r = LeakyRelu<alpha = 0.1>(c) y = ConvTranspose(r, v)",
        {"w": uneven(weights(4, 6, 3, 3), 1), "b": CONV["b"], "v": weights(6, 5, 3, 3)},
    ),
    "pooled and flattened": (
        "(float[n,4,8,8] x) => (float[n,k] y)",
        "c = Conv(x, w, b) r = Relu(c) p = AveragePool<kernel_shape = [3, 3]>(r) "
        "f = Flatten(p) y = Gemm(f, v)",
        CONV | {"v": weights(6 * 16, 5)},
    ),
    "channels last": (
        "(float[n,4,8,8] x) => (float[n,a,b,k] y)",
        "c = Conv(x, w, b) t = Transpose<perm = [0, 2, 3, 1]>(c) y = MatMul(t, v)",
        CONV | {"v": weights(6, 5)},
    ),
    "padded, nearest pixels": (
        IMAGE,
        "p = Constant<value_ints = [0, 0, 1, 1, 0, 0, 1, 1]>() "
        "s = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>() c = Conv(x, w, b) q = Pad(c, p) "
        'r = Resize<mode = "nearest">(q, , s) y = Conv(r, v)',
        CONV | NEXT,
    ),
    "squeeze and excitation": (
        IMAGE,
        "c = Conv(x, w, b) p = GlobalAveragePool(c) i = Conv(p, e) g = Sigmoid(i) m = Mul(c, g) "
        "y = Conv(m, v)",
        CONV | NEXT | {"e": weights(6, 6, 1, 1)},
    ),
    "Gemm": (VECTORS, "h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v)", DENSE),
    "MatMul and Add": (ROWS, "h = MatMul(x, w) a = Add(h, b) r = Relu(a) y = MatMul(r, v)", DENSE),
    "LayerNormalization": (
        "(float[n,6,4] x) => (float[n,6,5] q, float[n,6,5] k, float[n,6,5] u)",
        "l = LayerNormalization(x, g, b) q = MatMul(l, v) k = MatMul(l, v2) u = MatMul(l, v3)",
        NORM | {"v2": weights(4, 5, seed=2), "v3": weights(4, 5, seed=3)},
    ),
    "norm that is spelled out": (
        ROWS,
        "m = ReduceMean<keepdims = 1, noop_with_empty_axes = 0>(x) d = Sub(x, m) s = Mul(d, g) "
        "a = Add(b, s) y = MatMul(a, v)",
        NORM,
    ),
    "BatchNormalization": (
        IMAGE,
        "a = BatchNormalization(x, g, b, e, u) r = Relu(a) y = Conv(r, v)",
        NORM | {"e": np.zeros(4), "u": np.ones(4), "v": weights(5, 4, 3, 3)},
    ),
    "factors of channels": (
        "(float[n,4,8,8] x) => (float[n,k,a,b] y)",
        "t = Tanh(x) m = Mul(t, g) a = Add(m, b) r = Relu(a) y = Conv(r, v)",
        {
            "g": uneven(weights(4, 1, 1)),
            "b": uneven(weights(1, 4, 1, 1), 1),
            "v": weights(5, 4, 3, 3),
        },
    ),
    "one factor for all channels": (
        IMAGE,
        "c = Conv(x, w, b) s = HardSwish(c) m = Mul(f, s) a = Add(m, h) y = Conv(a, v)",
        CONV | NEXT | {"f": np.array([0.3]), "h": np.array(0.2)},
    ),
    "one factor for all columns": (
        ROWS,
        "h = MatMul(x, w) a = Add(h, b) s = HardSwish(a) m = Mul(s, f) y = MatMul(m, v)",
        DENSE | {"f": np.array(0.3)},
    ),
    "PRelu": (
        IMAGE,
        "c = Conv(x, w, b) r = PRelu(c, s) y = Conv(r, v)",
        CONV | NEXT | {"s": weights(6, 1, 1)},
    ),
}
"""Signature, nodes and constants of models with one site."""


@pytest.mark.parametrize("name", SITES)
def test_factors_move(name: str) -> None:
    signature, nodes, arrays = SITES[name]
    assert len(moved(build(signature, nodes, **arrays))) == 1


@pytest.mark.parametrize("name", SITES)
def test_even_channels_keep_their_constants(name: str) -> None:
    signature, nodes, arrays = SITES[name]
    even = {k: np.ones_like(a) if k in "bgwv" else a for k, a in arrays.items()}
    assert set(left(build(signature, nodes, **even)).values()) == {
        "factors of its channels would win too little"
    }


def test_quantized_to_8_bits_the_model_is_nearer_to_the_float_model() -> None:
    even = {"v": NEXT["v"] / uneven(np.ones((1, 6, 1, 1)), 1)}  # all channels count alike
    plain = prepare(build(IMAGE, SITES["Conv, Relu"][1], **CONV | even))
    x = np.random.default_rng(3).normal(size=(64, 4, 8, 8)).astype(np.float32)
    errors = []
    for model in (plain, equalize(plain, x)):
        mirror = cgmq.Mirror(cgmq.insert_gates(model, widths=(8,)))
        cgmq.calibrate(mirror, open_data(x, model))
        got = mirror(torch.from_numpy(x))["y"].detach().numpy()
        errors.append(np.square(got - outputs(plain, x)[0]).mean())
    assert errors[1] < errors[0] / 3, errors


LEFT = {
    "Clip to 6": (
        IMAGE,
        "z = Constant<value_float = 0.0>() s = Constant<value_float = 6.0>() c = Conv(x, w, b) "
        "r = Clip(c, z, s) y = Conv(r, v)",
        CONV | NEXT,
        None,
    ),
    "Sigmoid": (IMAGE, "c = Conv(x, w, b) r = Sigmoid(c) y = Conv(r, v)", CONV | NEXT, None),
    "read elsewhere": (
        IMAGE,
        "c = Conv(x, w, b) r = Relu(c) d = Conv<pads = [1, 1, 1, 1]>(r, v) y = Add(r, d)",
        CONV | {"v": weights(6, 6, 3, 3)},
        "Add",
    ),
    "output of the model": (
        "(float[n,4,8,8] x) => (float[n,6,6,6] r, float[n,k,a,b] y)",
        "c = Conv(x, w, b) r = Relu(c) y = Conv(r, v)",
        CONV | NEXT,
        "'r' is an output of the model",
    ),
    "the weight of both": (
        VECTORS,
        "h = Gemm(x, w) r = Relu(h) y = MatMul(r, w)",
        {"w": uneven(weights(4, 4), 1)},
        "other nodes read it too",
    ),
    "the bias of both": (
        IMAGE,
        "c = Conv(x, w, b) y = Conv<group = 6>(c, v, b)",
        CONV | {"v": weights(6, 1, 3, 3)},
        "other nodes read it too",
    ),
    "a weight of two readers": (
        "(float[n,4] x) => (float[n,k] y, float[n,k] z)",
        "h = Gemm(x, w, b) r = Relu(h) t = Tanh(x) y = MatMul(r, v) z = MatMul(t, v)",
        {"w": uneven(weights(4, 4), 1), "b": weights(4), "v": weights(4, 5)},
        "other nodes read it too",
    ),
    "two activations": (
        "(float[n,4] x) => (float[n,n] y)",
        "h = Gemm(x, w, b) t = Transpose(h) y = MatMul(h, t)",
        {"w": DENSE["w"], "b": DENSE["b"]},
        None,
    ),
    "GELU": (
        IMAGE,
        "c = Conv(x, w, b) q = Mul(c, f) e = Erf(q) a = Add(e, o) p = Mul(c, a) m = Mul(p, h) "
        "y = Conv(m, v)",
        CONV | NEXT | {"f": np.array(0.5**0.5), "o": np.array(1.0), "h": np.array(0.5)},
        None,
    ),
    "squared": (IMAGE, "c = Conv(x, w, b) m = Mul(c, c) y = Conv(m, v)", CONV | NEXT, None),
    "both operands of a product": (
        IMAGE,
        "c = Conv(x, w, b) r = Relu(c) m = Mul(c, r) d = Conv(r, v) e = Conv(m, v2) y = Add(d, e)",
        CONV | NEXT | {"v2": NEXT["v"]},
        "Mul",
    ),
    "padded channels": (
        IMAGE,
        "p = Constant<value_ints = [0, 1, 0, 0, 0, -1, 0, 0]>() c = Conv(x, w, b) q = Pad(c, p) "
        "y = Conv(q, v)",
        CONV | NEXT,
        None,
    ),
    "subgraph": (
        "(float[n,4] x) => (float[n,k] y)",
        "h = Gemm(x, w, b) r = Relu(h) d = MatMul(r, v) s = ReduceSum<keepdims = 0>(x) "
        "q = Cast<to = 9>(s) y = If(q) <then_branch = t () => (float[n,k] i) {i = Mul(d, d)}, "
        "else_branch = e () => (float[n,k] j) {j = MatMul(r, v2)}>",
        DENSE | {"v2": DENSE["v"]},
        "a subgraph reads",
    ),
    "no data": (
        IMAGE,
        "z = Mul(x, o) c = Conv(z, w) r = Relu(c) y = Conv(r, v)",
        {"w": CONV["w"], "o": np.zeros(1)} | NEXT,
        "all zero",
    ),
    "not finite": (
        IMAGE,
        "z = Div(x, o) c = Conv(z, w) r = Relu(c) y = Conv(r, v)",
        {"w": CONV["w"], "o": np.zeros(1)} | NEXT,
        "not finite",
    ),
}
"""Signature, nodes and constants of models without a site, and a part of the reason, if any."""


@pytest.mark.parametrize("name", LEFT)
def test_factors_stay(name: str) -> None:
    signature, nodes, arrays, why = LEFT[name]
    reasons = left(build(signature, nodes, **arrays))
    assert why is None or any(why in reason for reason in reasons.values())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["plain", "depthwise", "groups", "transposed"]),
            st.sampled_from(["", "Relu", "LeakyRelu", "MaxPool", "AveragePool", "Sigmoid"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**16),
)
def test_outputs_stay_the_same(layers: list[tuple[str, str]], seed: int) -> None:
    rng, value, text, arrays = np.random.default_rng(seed), "x", "", {}
    pool = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    for i, (kind, act) in enumerate(layers):
        shape = (4, {"depthwise": 1, "groups": 2}.get(kind, 4), 3, 3)
        arrays[f"w{i}"] = rng.normal(size=shape) * np.exp2(rng.integers(-5, 5, (4, 1, 1, 1)))
        arrays[f"b{i}"] = rng.normal(size=4)
        op = "ConvTranspose" if kind == "transposed" else "Conv"
        attributes = f"group = {4 // shape[1]}, pads = [1, 1, 1, 1]"
        text += f" c{i} = {op}<{attributes}>({value}, w{i}, b{i})"
        value = f"c{i}"
        if act:
            text += f" r{i} = {act}{pool if 'Pool' in act else ''}({value})"
            value = f"r{i}"
    arrays["last"] = rng.normal(size=(5, 4, 1, 1))
    moved(build(IMAGE, f"{text} y = Conv({value}, last)", **arrays))


def test_a_shared_shift_of_a_norm_is_copied() -> None:
    nodes = "l = LayerNormalization(x, g, b) m = MatMul(l, v) y = Add(m, b)"
    model = build(ROWS, nodes, **NORM | {"v": weights(4, 4)})
    assert len(moved(model)) == 1


def test_the_given_model_stays_as_it_is() -> None:
    proto = build(IMAGE, SITES["Conv, Relu"][1], **CONV | NEXT)
    before = proto.SerializeToString()
    model = prepare(proto)
    kept = ir.to_proto(model).SerializeToString()
    for given_model in (proto, model):
        equalized = equalize(given_model, samples(proto))
        assert not np.array_equal(equalized.graph.initializers["w"].const_value.numpy(), CONV["w"])
    assert proto.SerializeToString() == before
    assert ir.to_proto(model).SerializeToString() == kept
