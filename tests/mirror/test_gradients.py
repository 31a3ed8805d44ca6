"""Gradients of the mirror against finite differences, in float64."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.mirror import Mirror

GRAPHS = {
    "Conv": (
        "double[2,3,5,5] x, double[4,3,3,3] w, double[4] b",
        "y = Conv<pads=[0,1,1,1]>(x, w, b)",
    ),
    "grouped Conv": ("double[1,4,5,5] x, double[4,2,2,2] w", "y = Conv<group=2>(x, w)"),
    "strided 1x1 Conv": (
        "double[2,2,6,5] x, double[4,1,1,1] w, double[4] b",
        "y = Conv<strides=[2,3], pads=[1,0,1,1], group=2>(x, w, b)",
    ),
    "strided 1x1 ConvTranspose": (
        "double[2,2,3,2] x, double[2,3,1,1] w, double[3] b",
        "y = ConvTranspose<strides=[2,3], pads=[1,0,0,0], output_padding=[1,0]>(x, w, b)",
    ),
    "ConvTranspose": (
        "double[1,3,4,4] x, double[3,2,3,3] w, double[2] b",
        "y = ConvTranspose<strides=[2,2], pads=[1,0,0,1]>(x, w, b)",
    ),
    "Gemm": (
        "double[4,2] x, double[3,4] w, double[3] b",
        "y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(x, w, b)",
    ),
    "MatMul": ("double[2,3,4] x, double[4,5] w", "y = MatMul(x, w)"),
    "MaxPool": ("double[1,2,5,5] x", "y = MaxPool<kernel_shape=[3,3], pads=[2,0,0,2]>(x)"),
    "AveragePool": (
        "double[1,2,5,5] x",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,0,0,2], strides=[2,2], ceil_mode=1>(x)",
    ),
    "GlobalAveragePool": ("double[2,3,4,4] x", "y = GlobalAveragePool(x)"),
    "BatchNormalization": (
        "double[3,2,2] x, double[2] s, double[2] b, double[2] m",
        "v = Exp(m) y = BatchNormalization(x, s, b, m, v)",
    ),
    "InstanceNormalization": (
        "double[2,3,4] x, double[3] s, double[3] b",
        "y = InstanceNormalization(x, s, b)",
    ),
    "LayerNormalization": (
        "double[3,4] x, double[4] s, double[4] b",
        "y = LayerNormalization(x, s, b)",
    ),
    "activations": (
        "double[3,4] x",
        "a = Gelu(x) b = Mish(a) c = Softplus(b) d = Elu(c) e = Selu(d) f = Sigmoid(e) y = Tanh(f)",
    ),
    "PRelu": ("double[3,4] x, double[4] s", "y = PRelu(x, s)"),
    "Softmax": ("double[3,4] x", "s = Softmax(x) l = LogSoftmax<axis=0>(x) y = Add(s, l)"),
    "arithmetic": (
        "double[3,4] x, double[4] z",
        "e = Exp(x) p = Pow(e, z) q = Div(p, e) m = Max(q, z) n = Min(m, x) y = Mean(n, p, q)",
    ),
    "reductions": (
        "double[3,4] x",
        "a = ReduceL2(x) b = ReduceLogSumExp(x) c = ReduceProd(x) d = ReduceMax(x) "
        "y = Sum(a, b, c, d)",
    ),
    "Pad": (
        "double[3,4] x",
        'p = Constant<value_ints=[1,2,0,1]>() a = Pad<mode="reflect">(x, p) '
        'b = Pad<mode="wrap">(x, p) c = Pad(x, p) d = Pad<mode="edge">(x, p) y = Sum(a, b, c, d)',
    ),
    "Slice": (
        "double[3,4] x",
        "s = Constant<value_ints=[-1,3]>() e = Constant<value_ints=[-9,0]>() "
        "a = Constant<value_ints=[0,1]>() t = Constant<value_ints=[-1,-2]>() "
        "y = Slice(x, s, e, a, t)",
    ),
    "Gather": (
        "double[3,4] x",
        "i = Constant<value = int64[2,2] {0,-1,2,2}>() g = Gather<axis=1>(x, i) y = Relu(g)",
    ),
}


@pytest.mark.parametrize("name", list(GRAPHS))
def test_gradients(name: str) -> None:
    signature, body = GRAPHS[name]
    text = f'<ir_version: 10, opset_import: ["": 22]> g ({signature}) => (y) {{ {body} }}'
    mirror = Mirror(ir.from_proto(onnx.parser.parse_model(text)))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for value in mirror.model.graph.inputs:
        shape = [int(size) for size in value.shape]
        tensor = torch.randn(shape, dtype=torch.float64, generator=generator)
        tensors[value.name] = tensor.requires_grad_()

    def run(*values: torch.Tensor) -> torch.Tensor:
        return mirror(dict(zip(tensors, values, strict=True)))["y"]

    assert torch.autograd.gradcheck(run, tuple(tensors.values()))
