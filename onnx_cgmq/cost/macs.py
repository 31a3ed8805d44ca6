"""Finds the multiply-accumulates of a graph: one :class:`MacOp` for every product of a MAC node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.cost import geometry
from onnx_cgmq.cost.geometry import Array, Side
from onnx_cgmq.cost.implied_shapes import OpenShape, with_implied_sizes
from onnx_cgmq.cost.product import Product
from onnx_cgmq.cost.products import products
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.graph.layouts import permutation, transposes_above
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.ort.sizes import Sizes

_MISFIT: Final = (ValueError, IndexError, TypeError, ZeroDivisionError)
"""What reading the products of a node raises if the shapes of its operands do not fit."""


@dataclass(frozen=True)
class Operand:
    """One operand of a product.

    Attributes:
        name: Name of the float tensor, before its quantizer. Empty for a value inside the operator,
            which is float.
        shape: Shape of the tensor for one sample, or for the batch that the model fixes.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MacOp:
    """One product of a MAC node.

    ``BOPs = sum over taps of taps_a(widths of a) * taps_b(widths of b) / samples``
    (:mod:`~onnx_cgmq.cost.geometry`).

    Attributes:
        node: Name of the node. If the node has several products, each has a suffix
            (``lstm.state``).
        op_type: Operator of the node.
        a: The first operand.
        b: The second operand.
        side_a: How ``a`` maps onto taps.
        side_b: How ``b`` maps onto taps.
        samples: Number of samples in the shapes, by which counts are divided.
        output: Name of the first output of the node.
    """

    node: str
    op_type: str
    a: Operand
    b: Operand
    side_a: Side
    side_b: Side
    samples: int = 1
    output: str = ""

    @property
    def tap_shape(self) -> tuple[int, ...]:
        """Number of taps along every tap axis."""
        return self.side_a.tap_shape

    @property
    def macs(self) -> int:
        """Number of multiply-accumulates for one sample, those on padding included."""
        return self.bops(np.int64(1), np.int64(1))

    def taps_a(self, widths: npt.ArrayLike) -> Array:
        """Sums the widths of ``a`` at every tap; the result broadcasts to ``tap_shape``."""
        return self.side_a.taps(np.asarray(widths))

    def taps_b(self, widths: npt.ArrayLike) -> Array:
        """Sums the widths of ``b`` at every tap; the result broadcasts to ``tap_shape``."""
        return self.side_b.taps(np.asarray(widths))

    def spread_a(self, taps: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Transposes :meth:`taps_a`: sums numbers at taps to ``shape`` (default: that of ``a``)."""
        return self.side_a.spread(taps, self.a.shape if shape is None else shape)

    def spread_b(self, taps: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Transposes :meth:`taps_b`: sums numbers at taps to ``shape`` (default: that of ``b``)."""
        return self.side_b.spread(taps, self.b.shape if shape is None else shape)

    def bops(self, widths_a: npt.ArrayLike, widths_b: npt.ArrayLike) -> int:
        """Counts bit operations: the sum over multiply-accumulates of the product of both widths.

        Args:
            widths_a: Widths of ``a``, in a shape that broadcasts to its own.
            widths_b: Widths of ``b``, likewise.
        """
        taps_a, taps_b = self.taps_a(widths_a), self.taps_b(widths_b)
        return geometry.tap_product(taps_a, taps_b, self.tap_shape) // self.samples


@dataclass(frozen=True)
class Source:
    """The tensor of the float model that an operand stands for.

    Attributes:
        name: Name of the tensor in the float model.
        path: The Transpose nodes between the tensor and the operand, the last one first.
    """

    name: str
    path: tuple[ir.Node, ...] = ()


def mac_ops(
    model: ir.Model, source_of: Callable[[ir.Node, int], Source] | None = None
) -> tuple[MacOp, ...]:
    """Finds the multiply-accumulates of a prepared, gated or written model.

    Sizes that the model leaves open are those stored for its inputs (:mod:`~onnx_cgmq.ort.sizes`),
    else 1. Sizes that only the data decide count as 1. Subgraphs count as if they ran once.

    Args:
        model: The model.
        source_of: Finds the float tensor that an operand stands for, given the node and the index
            of its input. By default this is the input of the operand's gated quantizer, or the
            operand itself.

    Returns:
        One entry for every product of every MAC node, in graph order.

    Raises:
        ModelError: The rank of an operand is unknown, or a shape does not fit its operator.
    """
    sizes, source_of = Sizes(model), source_of or _sources_before_quantizers(model)
    found = []
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if mac_spec(node) is None:
            continue
        name = node.name or str(node.outputs[0].name)
        for product in _products(node, sizes):
            label = f"{name}.{product.label}" if product.label else name
            (a, side_a), (b, side_b) = (
                _operand(node, index, side, source_of)
                for index, side in zip((product.a, product.b), product.sides, strict=True)
            )
            found.append(
                MacOp(label, node.op_type, a, b, side_a, side_b, sizes.samples, node_key(node))
            )
    return tuple(found)


def _products(node: ir.Node, sizes: Sizes) -> tuple[Product, ...]:
    """Finds the products of a MAC node.

    Raises:
        ModelError: The rank of an operand is unknown, or a shape does not fit the operator.
    """
    spec = mac_spec(node)
    assert spec is not None
    shapes = _shapes(node, sizes)
    name = node.name or str(node.outputs[0].name)
    for index, value in spec.operand_values(node):
        if shapes[index] is None:
            raise ModelError(
                f"node {name!r} ({node.op_type}): the rank of its input {value.name!r} is unknown; "
                "give shapes of the inputs (--shape, in Python: shapes) with which onnxruntime can "
                "run the model, or infer its shapes first, as prepare() does"
            )
    known = _counted(node, shapes, sizes)
    try:
        return products(node, known)
    except _MISFIT as error:
        operands = " and ".join(str(known[index]) for index, _ in spec.operand_values(node))
        raise ModelError(
            f"node {name!r} ({node.op_type}): shapes {operands} do not fit ({error}); "
            "check the model with onnx.checker and infer its shapes"
        ) from error


def has_open_size(node: ir.Node, sizes: Sizes) -> bool:
    """Whether the count of a MAC node depends on a size that is not known.

    It does not where the other operand has the same axis: both have one size.
    """
    spec = mac_spec(node)
    assert spec is not None
    shapes = _shapes(node, sizes)
    known = [_with_ones(shape) for shape in shapes]
    for index, _ in spec.operand_values(node):
        for axis, size in enumerate(shapes[index] or ()):
            if size is None:
                other = list(known)
                other[index] = tuple(
                    2 if i == axis else n for i, n in enumerate(known[index] or ())
                )
                if _count(node, other) not in (_count(node, known), None):
                    return True
    return False


def _shapes(node: ir.Node, sizes: Sizes) -> list[OpenShape | None]:
    """The shapes of a node's inputs, as far as the graph or the operator itself has them."""
    known = [None if v is None or not v.name else sizes.shape(v) for v in node.inputs]
    return with_implied_sizes(node, known)


def _counted(
    node: ir.Node, shapes: Sequence[OpenShape | None], sizes: Sizes
) -> list[tuple[int, ...] | None]:
    """The shapes of a node's inputs with which its products are counted."""
    counted = [
        sizes.with_ones(value) if value is not None and shape is not None and None in shape else ()
        for value, shape in zip(node.inputs, shapes, strict=True)
    ]
    return [
        _with_ones(
            [b if a is None else a for a, b in zip(shape, other, strict=True)]
            if shape is not None and other is not None and len(other) == len(shape)
            else shape
        )
        for shape, other in zip(shapes, counted, strict=True)
    ]


def _count(node: ir.Node, shapes: Sequence[tuple[int, ...] | None]) -> int | None:
    """Multiply-accumulates of a node; ``None`` if the shapes do not fit."""
    one = np.asarray(1)
    try:
        sides = [product.sides for product in products(node, shapes)]
    except _MISFIT:
        return None
    return sum(geometry.tap_product(a.taps(one), b.taps(one), a.tap_shape) for a, b in sides)


def _with_ones(shape: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """A shape whose open sizes are 1."""
    return None if shape is None else tuple(1 if n is None else n for n in shape)


def _operand(
    node: ir.Node, index: int | None, side: Side, source_of: Callable[[ir.Node, int], Source]
) -> tuple[Operand, Side]:
    """Describes an operand in the layout of the tensor that it stands for.

    Args:
        node: The MAC node.
        index: Index of the input that is the operand; ``None`` for a value inside the operator.
        side: How the input maps onto taps.
        source_of: Finds the tensor that the operand stands for.

    Returns:
        The operand, and how the tensor maps onto taps.
    """
    value = None if index is None else node.inputs[index]
    if index is None or value is None:
        return Operand("", side.shape), side
    source = source_of(node, index)
    if source.path:
        axes = dict(zip(permutation(source.path, len(side.axes)), side.axes, strict=True))
        side = Side(tuple(axes[axis] for axis in range(len(axes))), side.tap_shape)
    return Operand(source.name, side.shape), side


def _sources_before_quantizers(model: ir.Model) -> Callable[[ir.Node, int], Source]:
    """Returns a function that finds the tensor before the quantizer of an operand.

    If a node reads a quantized tensor as float, the function gives the tensor another name
    (:func:`float_name`), so that its widths do not count there.
    """
    sources = {node.outputs[0]: node.inputs[0] for node in model.graph if is_gated_quantizer(node)}
    gated = set(sources.values())

    def source_of(node: ir.Node, index: int) -> Source:
        value = node.inputs[index]
        assert value is not None
        path = transposes_above(value)
        top = (path[-1].inputs[0] if path else value) or value
        tensor = sources.get(top)
        if tensor is not None and (tensor.const_value is not None or not path):
            return Source(str(tensor.name), path)
        return Source(float_name(str(value.name)) if value in gated else str(value.name))

    return source_of


def float_name(tensor: str) -> str:
    """Returns the name that a quantized tensor has where a node reads its float values."""
    return f"{tensor} (float)"
