"""Finds the products of operators on matrices: MatMul, Gemm, Einsum and their relatives."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnx_cgmq.cost.geometry import Axis, Side, contraction
from onnx_cgmq.cost.product import Build, Product, Shape, Shapes, axes_of, shape_of
from onnx_cgmq.graph.einsum import einsum_labels, einsum_terms, is_plain_einsum
from onnx_cgmq.graph.nodes import int_attribute


def matmul(a: int, b: int) -> Build:
    """Returns the builder for a MatMul of the inputs with the indices ``a`` and ``b``."""

    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        return (Product(a, b, matrix_product(shape_of(shapes, a), shape_of(shapes, b))),)

    return build


def gemm(a: int, b: int) -> Build:
    """Returns the builder for a Gemm of the inputs with the indices ``a`` and ``b``."""

    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        transposed = (bool(int_attribute(node, name, 0)) for name in ("transA", "transB"))
        return (
            Product(a, b, matrix_product(shape_of(shapes, a), shape_of(shapes, b), *transposed)),
        )

    return build


def fused_matmul(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the product of com.microsoft.FusedMatMul.

    Its attributes ``transBatchA`` and ``transBatchB`` say that the rows of an operand come before
    its batch axes.
    """
    sides = []
    for index, (name, labels) in enumerate((("A", ("m", "k")), ("B", ("k", "n")))):
        transposed = int_attribute(node, f"trans{name}", 0)
        rows_first = bool(int_attribute(node, f"transBatch{name}", 0))
        matrix = labels[::-1] if transposed else labels
        sides.append(_matrix_axes(shape_of(shapes, index), matrix, rows_first))
    return (Product(0, 1, contraction(*sides)),)


def matmul_of_n_bits(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the product of com.microsoft.MatMulNBits: ``[.., M, K] x [N, K]``.

    The file holds the second operand packed in blocks, so its shape comes from attributes.
    """
    weight = (int_attribute(node, "N", 0), int_attribute(node, "K", 0))
    return (Product(0, 1, matrix_product(shape_of(shapes, 0), weight, transpose_b=True)),)


def matrix_product(
    a: Shape, b: Shape, transpose_a: bool = False, transpose_b: bool = False
) -> tuple[Side, Side]:
    """Maps the operands of ``[.., M, K] x [.., K, N]`` onto taps.

    Leading axes broadcast. The only axis of a vector is ``K``.

    Args:
        a: Shape of the first operand.
        b: Shape of the second operand.
        transpose_a: Whether the first operand is ``[.., K, M]``.
        transpose_b: Whether the second operand is ``[.., N, K]``.

    Raises:
        ValueError: The shapes do not fit.
    """
    a_axes = _matrix_axes(a, ("k", "m") if transpose_a else ("m", "k"))
    b_axes = _matrix_axes(b, ("n", "k") if transpose_b else ("k", "n"))
    return contraction(a_axes, b_axes)


def _matrix_axes(shape: Shape, matrix: tuple[str, str], rows_first: bool = False) -> list[Axis]:
    """Labels the axes of a stack of matrices.

    Args:
        shape: Shape of the stack, or of a vector.
        matrix: Labels of the last two axes.
        rows_first: Whether the axes of the stack come behind the rows instead of before them.
    """
    if len(shape) < 2:
        return axes_of(["k"], shape)
    lead = [f"lead{i}" for i in range(len(shape) - 2, 0, -1)]  # counted from the right
    rows, columns = matrix
    return axes_of([rows, *lead, columns] if rows_first else [*lead, rows, columns], shape)


def einsum(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the product of an Einsum.

    Two operands with distinct labels multiply where their labels are equal. An Einsum of any other
    form counts as float: one product of two values inside the operator.
    """
    terms = einsum_terms(node)
    labelled = [
        axes_of(einsum_labels(term, len(shape_of(shapes, index))), shape_of(shapes, index))
        for index, term in enumerate(terms)
    ]
    if is_plain_einsum(node):
        return (Product(0, 1, contraction(labelled[0], labelled[1])),)
    sizes: dict[str, int] = {}
    for axes in labelled:
        for ((label, size),) in axes:
            sizes[label] = max(size, sizes.get(label, 1))
    count = (len(terms) - 1) * math.prod(sizes.values())
    products: list[Axis] = [(("all", count),)]
    return (Product(None, None, contraction(products, products)),) if count else ()
