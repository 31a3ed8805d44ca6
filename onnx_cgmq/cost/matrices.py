"""Products of matrices: MatMul, Gemm, Einsum and their relatives."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnx_cgmq.cost.geometry import Axis, Side, contraction
from onnx_cgmq.cost.product import Build, Product, Shape, Shapes, axes_of, shape_of
from onnx_cgmq.graph.einsum import einsum_labels, einsum_terms, is_plain_einsum
from onnx_cgmq.graph.nodes import int_attribute


def matmul(a: int, b: int) -> Build:
    """MatMul of two inputs."""

    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        return (Product(a, b, matrix_product(shape_of(shapes, a), shape_of(shapes, b))),)

    return build


def gemm(a: int, b: int) -> Build:
    """Gemm of two inputs."""

    def build(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
        transposed = (bool(int_attribute(node, name, 0)) for name in ("transA", "transB"))
        return (
            Product(a, b, matrix_product(shape_of(shapes, a), shape_of(shapes, b), *transposed)),
        )

    return build


def fused_matmul(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """com.microsoft.FusedMatMul: ``transBatch`` says that the rows come before the batch axes."""
    sides = []
    for index, (name, labels) in enumerate((("A", ("m", "k")), ("B", ("k", "n")))):
        turned = int_attribute(node, f"trans{name}", 0)
        rows_first = bool(int_attribute(node, f"transBatch{name}", 0))
        matrix = labels[::-1] if turned else labels
        sides.append(_matrix_axes(shape_of(shapes, index), matrix, rows_first))
    return (Product(0, 1, contraction(*sides)),)


def matmul_of_n_bits(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """com.microsoft.MatMulNBits: ``[.., M, K] x [N, K]``, the second one packed in blocks."""
    weight = (int_attribute(node, "N", 0), int_attribute(node, "K", 0))
    return (Product(0, 1, matrix_product(shape_of(shapes, 0), weight, transpose_b=True)),)


def matrix_product(
    a: Shape, b: Shape, transpose_a: bool = False, transpose_b: bool = False
) -> tuple[Side, Side]:
    """``[.., M, K] x [.., K, N]``; leading axes broadcast, a vector is contracted whole."""
    a_axes = _matrix_axes(a, ("k", "m") if transpose_a else ("m", "k"))
    b_axes = _matrix_axes(b, ("n", "k") if transpose_b else ("k", "n"))
    return contraction(a_axes, b_axes)


def _matrix_axes(shape: Shape, matrix: tuple[str, str], rows_first: bool = False) -> list[Axis]:
    """Axes of a stack of matrices: those of the stack first, or behind the rows."""
    if len(shape) < 2:
        return axes_of(["k"], shape)
    lead = [f"lead{i}" for i in range(len(shape) - 2, 0, -1)]  # counted from the right
    rows, columns = matrix
    return axes_of([rows, *lead, columns] if rows_first else [*lead, rows, columns], shape)


def einsum(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Two operands multiply where their labels meet; any other form counts as float."""
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
    whole: list[Axis] = [(("all", count),)]
    return (Product(None, None, contraction(whole, whole)),) if count else ()
