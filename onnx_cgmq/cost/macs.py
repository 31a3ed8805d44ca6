"""The multiply-accumulates of a graph: one :class:`MacOp` for every product of a MAC operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.cost import geometry
from onnx_cgmq.cost.geometry import Array, Side
from onnx_cgmq.cost.product import Product
from onnx_cgmq.cost.products import products
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.graph.layouts import permutation, transposes_above
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.ort.sizes import Sizes


@dataclass(frozen=True)
class Operand:
    """One operand of a product.

    Attributes:
        name: Name of the float tensor (of the value before its quantizer); empty for a value inside
            of the operator, which is float.
        shape: Its shape for one sample, or for the batch that the model fixes.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MacOp:
    """The multiply-accumulates of one product, for one sample.

    ``BOPs = sum(taps_a(widths of a) * taps_b(widths of b)) / samples``.

    Attributes:
        node: Name of the node; the products of one node have a suffix each (``lstm.state``).
        op_type: Its operator.
        a: First operand.
        b: Second operand.
        side_a: Map of ``a`` onto taps.
        side_b: Map of ``b`` onto taps.
        samples: Samples that the shapes hold.
        output: Name of the node's first output.
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
        """Shape of the contraction."""
        return self.side_a.tap_shape

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample, those on padding included."""
        return self.bops(np.int64(1), np.int64(1))

    def taps_a(self, widths: npt.ArrayLike) -> Array:
        """Widths of ``a`` summed for every tap; broadcasts to ``tap_shape``."""
        return self.side_a.taps(np.asarray(widths))

    def taps_b(self, widths: npt.ArrayLike) -> Array:
        """Widths of ``b`` summed for every tap; broadcasts to ``tap_shape``."""
        return self.side_b.taps(np.asarray(widths))

    def spread_a(self, taps: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Transpose of :meth:`taps_a`, summed to ``shape`` (default: the shape of ``a``)."""
        return self.side_a.spread(taps, self.a.shape if shape is None else shape)

    def spread_b(self, taps: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Transpose of :meth:`taps_b`, summed to ``shape`` (default: the shape of ``b``)."""
        return self.side_b.spread(taps, self.b.shape if shape is None else shape)

    def bops(self, widths_a: npt.ArrayLike, widths_b: npt.ArrayLike) -> int:
        """Bit operations: sum over multiply-accumulates of the product of both widths."""
        taps_a, taps_b = self.taps_a(widths_a), self.taps_b(widths_b)
        return geometry.tap_product(taps_a, taps_b, self.tap_shape) // self.samples


@dataclass(frozen=True)
class Source:
    """The tensor that an operand stands for.

    Attributes:
        name: Its name in the float model.
        path: Transpose nodes between it and the operand, nearest to the operand first.
    """

    name: str
    path: tuple[ir.Node, ...] = ()


def mac_ops(
    model: ir.Model, source_of: Callable[[ir.Node, int], Source] | None = None
) -> tuple[MacOp, ...]:
    """Finds the multiply-accumulates of a prepared, gated or written graph, in graph order.

    Sizes that the model leaves open are those noted for its inputs (:mod:`~onnx_cgmq.ort.sizes`);
    what depends on the data counts as 1. Subgraphs count once.

    Args:
        model: The model.
        source_of: Finds the float tensor that an operand (a node and the index of its input) stands
            for; by default the input of its gated quantizer, if it has one.

    Returns:
        One entry for every product of every MAC operator.

    Raises:
        ModelError: An operand has no known rank or a shape that its operator does not allow.
    """
    sizes, source_of = Sizes(model), source_of or _before_gates(model)
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
    spec = mac_spec(node)
    assert spec is not None
    shapes = [
        None if value is None or not value.name else sizes.shape(value) for value in node.inputs
    ]
    name = node.name or str(node.outputs[0].name)
    for index, value in spec.operand_values(node):
        if shapes[index] is None:
            raise ModelError(
                f"node {name!r} ({node.op_type}): the rank of {value.name!r} is unknown; "
                "infer the model's shapes first, as prepare() does"
            )
    known = [
        None if shape is None else tuple(1 if n is None else n for n in shape) for shape in shapes
    ]
    try:
        return products(node, known)
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        operands = " and ".join(str(known[index]) for index, _ in spec.operand_values(node))
        raise ModelError(
            f"node {name!r} ({node.op_type}): shapes {operands} do not fit ({error}); "
            "check the model with onnx.checker and infer its shapes"
        ) from error


def _operand(
    node: ir.Node, index: int | None, side: Side, source_of: Callable[[ir.Node, int], Source]
) -> tuple[Operand, Side]:
    """An operand, and its map onto taps, both in the layout of the tensor it stands for."""
    value = None if index is None else node.inputs[index]
    if index is None or value is None:
        return Operand("", side.shape), side
    source = source_of(node, index)
    if source.path:
        axes = dict(zip(permutation(source.path, len(side.axes)), side.axes, strict=True))
        side = Side(tuple(axes[axis] for axis in range(len(axes))), side.tap_shape)
    return Operand(source.name, side.shape), side


def _before_gates(model: ir.Model) -> Callable[[ir.Node, int], Source]:
    """Operands by the tensor before their quantizer; who reads such a tensor as it is, is told."""
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
    """What a quantized tensor is called where an operator reads its float values."""
    return f"{tensor} (float)"
