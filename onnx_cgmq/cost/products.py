"""The products of every MAC operator: which of its inputs multiply, and how they meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.cost import geometry
from onnx_cgmq.cost.geometry import Axis, Side, contraction
from onnx_cgmq.graph.einsum import einsum_labels, einsum_terms, is_plain_einsum
from onnx_cgmq.graph.opspec import int_attribute, operator_key

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
"""Shapes of the inputs of a node, ``None`` where one is left out."""


@dataclass(frozen=True, eq=False)
class Product:
    """One product of a node; most operators have one.

    Attributes:
        a: Index of the input that is its first operand; ``None``: a value inside of the operator,
            such as a recurrent state, which is float.
        b: The same of its second operand.
        sides: How both map onto taps.
        label: Tells the products of one node apart; empty where there is one.
    """

    a: int | None
    b: int | None
    sides: tuple[Side, Side]
    label: str = ""


def products(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """The products of a MAC operator.

    Args:
        node: A node that :func:`~onnx_cgmq.graph.opspec.mac_spec` has an entry for.
        shapes: Shapes of all its inputs.

    Raises:
        ValueError: The shapes don't fit the operator.
        IndexError: A shape has too few axes.
    """
    return _PRODUCTS[operator_key(node)](node, shapes)


def _shape(shapes: Shapes, index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise ValueError(f"input {index} is missing")
    return shape


def _attribute_ints(node: ir.Node, name: str, default: Shape) -> Shape:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def _axes(labels: Sequence[str], sizes: Sequence[int]) -> list[Axis]:
    return [((label, size),) for label, size in zip(labels, sizes, strict=True)]


# -- convolutions ---------------------------------------------------------------------------------


def _conv(a: int | None, b: int, shape_of: int = 0) -> _Build:
    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        return (Product(a, b, _convolution(node, _shape(shapes, shape_of), _shape(shapes, b))),)

    return build


def _convolution(node: ir.Node, a: Shape, b: Shape) -> tuple[Side, Side]:
    rank = len(a) - 2
    ones = (1,) * rank
    strides = _attribute_ints(node, "strides", ones)
    dilations = _attribute_ints(node, "dilations", ones)
    pads = _attribute_ints(node, "pads", (0,) * (2 * rank))
    auto_pad = node.attributes.get("auto_pad")
    mode = "NOTSET" if auto_pad is None else auto_pad.as_string()
    if mode == "VALID":
        pads = (0,) * (2 * rank)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(a[2:], b[2:], strides, dilations, upper=mode == "SAME_UPPER")
    return geometry.convolution(a, b, strides, dilations, pads, int_attribute(node, "group", 1))


def _same_pads(
    spatial: Shape, kernel: Shape, strides: Shape, dilations: Shape, upper: bool
) -> Shape:
    """Explicit pads of ``SAME_UPPER`` and ``SAME_LOWER``: ``ceil(size / stride)`` positions."""
    small, large = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small.append(total // 2)
        large.append(total - total // 2)
    return (*small, *large) if upper else (*large, *small)


def _conv_transpose(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Every input element meets every weight of its channel; those cropped away count too."""
    a, b = _shape(shapes, 0), _shape(shapes, 1)
    spatial = [f"x{i}" for i in range(len(a) - 2)]
    kernel = [f"k{i}" for i in range(len(b) - 2)]
    sides = contraction(_axes(["n", "c", *spatial], a), _axes(["c", "m", *kernel], b))
    return (Product(0, 1, sides),)


# -- matrices -------------------------------------------------------------------------------------


def _matmul(a: int, b: int) -> _Build:
    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        return (Product(a, b, _matrix_product(_shape(shapes, a), _shape(shapes, b))),)

    return build


def _gemm(a: int, b: int) -> _Build:
    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        transposed = (bool(int_attribute(node, name, 0)) for name in ("transA", "transB"))
        return (Product(a, b, _matrix_product(_shape(shapes, a), _shape(shapes, b), *transposed)),)

    return build


def _matrix_product(
    a: Shape, b: Shape, transpose_a: bool = False, transpose_b: bool = False
) -> tuple[Side, Side]:
    """``[.., M, K] x [.., K, N]``; leading axes broadcast, a vector is contracted whole."""
    matrices = (
        ["k", "m"] if transpose_a else ["m", "k"],
        ["n", "k"] if transpose_b else ["k", "n"],
    )
    sides = []
    for shape, matrix in zip((a, b), matrices, strict=True):
        lead = [f"lead{i}" for i in range(len(shape) - 2, 0, -1)]  # counted from the right
        sides.append(_axes([*lead, *matrix] if len(shape) > 1 else ["k"], shape))
    return contraction(*sides)


def _einsum(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Two operands multiply where their labels meet; any other form counts as float."""
    terms = einsum_terms(node)
    labelled = [
        _axes(einsum_labels(term, len(_shape(shapes, index))), _shape(shapes, index))
        for index, term in enumerate(terms)
    ]
    if is_plain_einsum(node):
        return (Product(0, 1, contraction(labelled[0], labelled[1])),)
    sizes: dict[str, int] = {}
    for axes in labelled:
        for ((label, size),) in axes:
            sizes[label] = max(size, sizes.get(label, 1))
    count = (len(terms) - 1) * math.prod(sizes.values())
    whole: list[Axis] = [(("all", count),)]
    return (Product(None, None, contraction(whole, whole)),) if count else ()


# -- several products in one node -----------------------------------------------------------------


def _recurrent(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """RNN, GRU, LSTM: the input meets its weights, the state inside its recurrent weights.

    ``X [steps, n, i]`` (layout 1: ``[n, steps, i]``), ``W [directions, gates, i]``,
    ``R [directions, gates, h]``.
    """
    x, w, r = (_shape(shapes, index) for index in range(3))
    state = _axes(["d", "steps", "n", "h"], [r[0], x[0], x[1], r[2]])
    return (
        Product(0, 1, contraction(_axes(["steps", "n", "i"], x), _axes(["d", "g", "i"], w))),
        Product(None, 2, contraction(state, _axes(["d", "g", "h"], r)), "state"),
    )


def _attention(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Scores are Q K^T, the output is probabilities times V; masked entries count too.

    Several query heads may share one of K and V. Keys and values of the past, if given, are met by
    the same queries. ``Q [n, heads, q, d]`` or ``[n, q, heads d]``.
    """
    q, k, v = (_shape(shapes, index) for index in range(3))
    heads = int_attribute(node, "q_num_heads", 0) if len(q) == 3 else q[1]
    shared = int_attribute(node, "kv_num_heads", 0) if len(k) == 3 else k[1]
    if not heads or not shared or heads % shared:
        raise ValueError(f"{heads} heads of queries for {shared} of keys")
    queries = _heads(q, (("kv", shared), ("rep", heads // shared)), "q", "d")

    def probabilities(keys: int) -> list[Axis]:
        head: Axis = (("kv", shared), ("rep", heads // shared))
        return [(("n", q[0]),), head, (("q", q[-2]),), (("k", keys),)]

    found = [Product(0, 1, contraction(queries, _heads(k, (("kv", shared),), "k", "d")), "scores")]
    values = _heads(v, (("kv", shared),), "k", "v")
    found.append(Product(None, 2, contraction(probabilities(v[-2]), values), "values"))
    for index, label in ((4, "past_scores"), (5, "past_values")):
        past = shapes[index] if index < len(shapes) else None
        if past is None or not past[2]:
            continue
        if index == 4:
            sides = contraction(queries, _heads(past, (("kv", shared),), "k", "d"))
            found.append(Product(0, 4, sides, label))
        else:
            sides = contraction(probabilities(past[2]), _heads(past, (("kv", shared),), "k", "v"))
            found.append(Product(None, 5, sides, label))
    return tuple(found)


def _heads(shape: Shape, head: Axis, length: str, depth: str) -> list[Axis]:
    """Axes of ``[n, heads, length, depth]`` or ``[n, length, heads depth]``."""
    if len(shape) == 4:
        return [(("n", shape[0]),), head, ((length, shape[2]),), ((depth, shape[3]),)]
    size = shape[2] // math.prod(part for _, part in head)
    return [(("n", shape[0]),), ((length, shape[1]),), (*head, (depth, size))]


def _attention_with_weights(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """com.microsoft.Attention: ``x [n, q, i]`` is projected by ``w [i, queries keys values]``."""
    x, w, past = _shape(shapes, 0), _shape(shapes, 1), _optional(shapes, 4)
    given = _attribute_ints(node, "qkv_hidden_sizes", (w[1] // 3,) * 3)
    before = past[3] if past is not None else 0  # [keys and values, n, heads, past, d]
    inside = _attention_inside(x[0], x[1], x[1] + before, given[0] + given[2])
    return (Product(0, 1, _matrix_product(x, w)), *inside)


def _attention_of_rows(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """com.microsoft.MultiHeadAttention and GroupQueryAttention: products inside are float.

    Queries are ``[n, q, width]``, or ``[n, q, heads, 3, d]`` with keys and values in them; keys are
    ``[n, k, width]``, ``[n, k, heads, 2, d]`` or ``[n, heads, k, d]``. The past comes first.
    """
    q, k = _shape(shapes, 0), _optional(shapes, 1)
    grouped = node.op_type == "GroupQueryAttention"
    past = _optional(shapes, 3 if grouped else 6)
    heads = int_attribute(node, "num_heads", 1)
    width, keys = math.prod(q[2:]), q[1]
    if k is not None:
        keys = k[2] if len(k) == 4 else k[1]
    elif grouped:
        width = width * heads // (heads + 2 * int_attribute(node, "kv_num_heads", heads))
    else:
        width //= 3
    before = past[2] if past is not None else 0
    return _attention_inside(q[0], q[1], keys + before, 2 * width)


def _attention_inside(batch: int, queries: int, keys: int, width: int) -> tuple[Product, ...]:
    """Scores and values, ``width`` in all over the heads of both."""
    count: list[Axis] = [(("all", batch * queries * keys * width),)]
    return (Product(None, None, contraction(count, count), "inside"),)


def _optional(shapes: Shapes, index: int) -> Shape | None:
    return shapes[index] if index < len(shapes) else None


_Build = Callable[[ir.Node, Shapes], tuple[Product, ...]]

_PRODUCTS: Final[dict[str, _Build]] = {
    "Attention": _attention,
    "Conv": _conv(0, 1),
    "ConvInteger": _conv(0, 1),
    "ConvTranspose": _conv_transpose,
    # The input is read between its elements: what the weights meet is interpolated, so float.
    "DeformConv": _conv(None, 1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm(0, 1),
    "LSTM": _recurrent,
    "MatMul": _matmul(0, 1),
    "MatMulInteger": _matmul(0, 1),
    "QLinearConv": _conv(0, 3),
    "QLinearMatMul": _matmul(0, 3),
    "RNN": _recurrent,
    "com.microsoft.Attention": _attention_with_weights,
    "com.microsoft.GroupQueryAttention": _attention_of_rows,
    "com.microsoft.MultiHeadAttention": _attention_of_rows,
    "com.microsoft.QGemm": _gemm(0, 3),
}
