"""Finds the products of every MAC operator: which of its inputs multiply, and over which taps."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from onnx_cgmq.cost import geometry
from onnx_cgmq.cost.geometry import Side, contraction
from onnx_cgmq.cost.matrices import einsum, fused_matmul, gemm, matmul, matmul_of_n_bits
from onnx_cgmq.cost.product import (
    Build,
    Product,
    Shape,
    Shapes,
    attribute_ints,
    axes_of,
    shape_of,
)
from onnx_cgmq.cost.sequences import (
    attention,
    attention_with_projection,
    dynamic_lstm,
    multi_head_attention,
    recurrent,
)
from onnx_cgmq.graph.nodes import int_attribute, operator_key


def products(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of a MAC node.

    Args:
        node: A MAC node: :func:`~onnx_cgmq.graph.operators.mac_spec` has an entry for it.
        shapes: Shapes of all inputs of the node.

    Raises:
        ValueError: The shapes don't fit the operator.
        IndexError: A shape has too few axes.
    """
    return _PRODUCTS[operator_key(node)](node, shapes)


def _conv(a: int | None, b: int) -> Build:
    """Returns the builder for a convolution.

    Args:
        a: Index of the first operand; ``None`` if the operator computes it from input 0.
        b: Index of the weight.
    """

    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        return (Product(a, b, _convolution(node, shape_of(shapes, 0), shape_of(shapes, b))),)

    return build


def _convolution(node: ir.Node, a: Shape, b: Shape) -> tuple[Side, Side]:
    """Maps the operands of a convolution onto taps, as the attributes of the node say.

    Args:
        node: The node.
        a: Shape of the input.
        b: Shape of the weight.
    """
    rank = len(a) - 2
    ones = (1,) * rank
    strides = attribute_ints(node, "strides", ones)
    dilations = attribute_ints(node, "dilations", ones)
    pads = attribute_ints(node, "pads", (0,) * (2 * rank))
    auto_pad = node.attributes.get("auto_pad")
    mode = "NOTSET" if auto_pad is None else auto_pad.as_string()
    if mode == "VALID":
        pads = (0,) * (2 * rank)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(a[2:], b[2:], strides, dilations, upper=mode == "SAME_UPPER")
    return geometry.convolution(a, b, strides, dilations, pads, int_attribute(node, "group", 1))


def _same_pads(
    spatial: Shape, filter_shape: Shape, strides: Shape, dilations: Shape, upper: bool
) -> Shape:
    """Computes the pads for which there are ``ceil(size / stride)`` output positions.

    Args:
        spatial: Sizes of the spatial axes.
        filter_shape: Sizes of the filter along them.
        strides: Strides.
        dilations: Dilations.
        upper: Whether the end gets the larger pad (``SAME_UPPER``) or the beginning
            (``SAME_LOWER``).

    Returns:
        The beginnings of all axes, then the ends.
    """
    small, large = [], []
    for size, k, stride, dilation in zip(spatial, filter_shape, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small.append(total // 2)
        large.append(total - total // 2)
    return (*small, *large) if upper else (*large, *small)


def _conv_transpose(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the product of ConvTranspose: every input element meets every weight of its channel.

    Products that the pads crop away count too.
    """
    a, b = shape_of(shapes, 0), shape_of(shapes, 1)
    spatial = [f"x{i}" for i in range(len(a) - 2)]
    offsets = [f"k{i}" for i in range(len(b) - 2)]
    sides = contraction(axes_of(["n", "c", *spatial], a), axes_of(["c", "m", *offsets], b))
    return (Product(0, 1, sides),)


_PRODUCTS: Final[dict[str, Build]] = {
    "Attention": attention,
    "Conv": _conv(0, 1),
    "ConvInteger": _conv(0, 1),
    "ConvTranspose": _conv_transpose,
    # The weights meet values that are interpolated between elements of the input, which are float.
    "DeformConv": _conv(None, 1),
    "Einsum": einsum,
    "GRU": recurrent,
    "Gemm": gemm(0, 1),
    "LSTM": recurrent,
    "MatMul": matmul(0, 1),
    "MatMulInteger": matmul(0, 1),
    "QLinearConv": _conv(0, 3),
    "QLinearMatMul": matmul(0, 3),
    "RNN": recurrent,
    "com.microsoft.Attention": attention_with_projection,
    "com.microsoft.DynamicQuantizeLSTM": dynamic_lstm,
    "com.microsoft.DynamicQuantizeMatMul": matmul(0, 1),
    "com.microsoft.FusedConv": _conv(0, 1),
    "com.microsoft.FusedGemm": gemm(0, 1),
    "com.microsoft.FusedMatMul": fused_matmul,
    "com.microsoft.GroupQueryAttention": multi_head_attention,
    "com.microsoft.MatMulIntegerToFloat": matmul(0, 1),
    "com.microsoft.MatMulNBits": matmul_of_n_bits,
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.QAttention": attention_with_projection,
    "com.microsoft.QGemm": gemm(0, 3),
    "com.microsoft.TransposeMatMul": fused_matmul,
}
