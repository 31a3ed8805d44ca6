"""Keeps constant folding within bounds: a small file must not become gigabytes of constants."""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.einsum import einsum_labels, einsum_terms
from onnx_cgmq.graph.files.limits import most_constants
from onnx_cgmq.graph.nodes import called, standard_op

_NEVER_LARGER: Final = (
    "Cast",
    "Compress",
    "Concat",
    "Flatten",
    "Identity",
    "NonZero",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unique",
    "Unsqueeze",
)
"""Operators whose result has at most as many elements as they read; NonZero: times its axes."""

_MOST_AXES: Final = 64
"""So many axes a tensor has at most."""

_LEFT_ALONE: Final = (
    "AveragePool",
    "Col2Im",
    "Conv",
    "ConvTranspose",
    "DFT",
    "DeformConv",
    "LpPool",
    "MaxPool",
    "STFT",
    "StringConcat",
)
"""Operators that may take far more memory or time than the shape of their result tells. No exporter
computes constants with them."""

_MOST_PRODUCTS: Final = 2**37
"""Multiplications of a product of constant matrices: some seconds."""


class ConstantRoom:
    """What is left of the bytes that a model's constant expressions may make."""

    def __init__(self, model: ir.Model) -> None:
        """Measures the model's own tensors."""
        self._most = most_constants(model)
        self._made = 0

    def takes(self, node: ir.Node) -> bool:
        """Whether a node on constants may be computed; if so, its results count from then on.

        Args:
            node: All that it reads is constant. Its outputs have the shapes that follow from that.

        Raises:
            ModelError: There is no room for its results.
        """
        if standard_op(node) in _LEFT_ALONE or _products(node) > _MOST_PRODUCTS:
            return False
        sizes = [_bytes(output, node) for output in node.outputs]
        if None in sizes:
            return False
        self._made += sum(filter(None, sizes))
        if self._made > self._most:
            raise ModelError(
                f"{called(node)}: with its result, the constants that the model computes take "
                f"{self._made:,} bytes; at most {self._most:,} are made of a model of this size: "
                "store large constants in the model, or make them inputs"
            )
        return True


def _bytes(output: ir.Value, node: ir.Node) -> int | None:
    """Bytes of a result; ``None`` if they can't be told."""
    bits = 64 if output.dtype in (None, ir.DataType.STRING) else output.dtype.bitwidth
    if output.shape is not None and output.shape.is_static():
        return -(-math.prod(output.shape.numpy()) * bits // 8)
    if standard_op(node) not in _NEVER_LARGER:
        return None
    read = sum(math.prod(shape) for shape in _shapes(node))
    axes = _MOST_AXES if standard_op(node) == "NonZero" else 1
    return axes * read * bits // 8


def _products(node: ir.Node) -> int:
    """Multiplications of a product of matrices; 0 for other operators."""
    operator, shapes = standard_op(node), _shapes(node)
    if operator == "Einsum":
        sizes: dict[str, int] = {}
        for term, shape in zip(einsum_terms(node), shapes, strict=False):
            for label, size in zip(einsum_labels(term, len(shape)), shape, strict=False):
                sizes[label] = max(size, sizes.get(label, 1))
        return math.prod(sizes.values())
    if operator not in ("Gemm", "MatMul") or len(shapes) < 2 or not shapes[1]:
        return 0
    a, b = shapes[:2]
    return math.prod(a) * max(math.prod(b[:-2]), 1) * max(b[-2:])


def _shapes(node: ir.Node) -> list[tuple[int, ...]]:
    return [
        tuple(value.const_value.shape.numpy())
        for value in node.inputs
        if value is not None and value.const_value is not None
    ]
