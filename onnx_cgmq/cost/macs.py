"""The multiply-accumulates of a graph: one :class:`MacOp` for every MAC operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.cost import geometry
from onnx_cgmq.cost.geometry import Array, Side
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.opspec import int_attribute, mac_spec


@dataclass(frozen=True)
class Operand:
    """One operand of a MAC operator.

    Attributes:
        name: Name of the float tensor (of the value before its quantizer).
        shape: Its shape; activations have their batch (axis 0) as 1.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MacOp:
    """The multiply-accumulates of one node, for one sample.

    ``BOPs = sum(taps_a(widths of a) * taps_b(widths of b))``.

    Attributes:
        node: Name of the node.
        op_type: Its operator.
        a: First operand.
        b: Second operand.
        side_a: Map of ``a`` onto taps.
        side_b: Map of ``b`` onto taps.
    """

    node: str
    op_type: str
    a: Operand
    b: Operand
    side_a: Side
    side_b: Side

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
        return geometry.tap_product(self.taps_a(widths_a), self.taps_b(widths_b), self.tap_shape)


def mac_ops(
    model: ir.Model, float_value: Callable[[ir.Value], ir.Value] | None = None
) -> tuple[MacOp, ...]:
    """Finds the MAC operators of a prepared, gated or written graph, in graph order.

    Args:
        model: The model; shapes are inferred.
        float_value: Maps an operand as the node reads it to the float tensor it stands for;
            by default the input of its gated quantizer, if it has one.

    Returns:
        One entry for every MAC operator, those in subgraphs included.

    Raises:
        ModelError: An operand has no known rank or a shape that its operator does not allow.
    """
    source = float_value or ungated
    found = []
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        spec = mac_spec(node)
        if spec is None:
            continue
        build = _GEOMETRY[spec.op_type]
        read = [node.inputs[index] for index in spec.operands]
        values = [source(value) for value in read if value is not None]
        name = node.name or str(node.outputs[0].name)
        shapes = tuple(_operand_shape(node, value, index) for index, value in enumerate(values))
        try:
            side_a, side_b = build(node, shapes[0], shapes[1])
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"node {name!r} ({node.op_type}): shapes {shapes[0]} and {shapes[1]} do not fit; "
                "check the model with onnx.checker and infer its shapes"
            ) from error
        a, b = (
            Operand(str(value.name), side.shape)
            for value, side in zip(values, (side_a, side_b), strict=True)
        )
        found.append(MacOp(name, node.op_type, a, b, side_a, side_b))
    return tuple(found)


def ungated(value: ir.Value) -> ir.Value:
    """The value before its gated quantizer, or the value itself."""
    producer = value.producer()
    if producer is not None and producer.domain == "onnx_cgmq" and producer.inputs[0] is not None:
        return producer.inputs[0]
    return value


def _operand_shape(node: ir.Node, value: ir.Value, index: int) -> tuple[int, ...]:
    """Shape for one sample: unknown sizes are 1, and so is the batch of an activation."""
    if value.shape is None and value.const_value is None:
        raise ModelError(
            f"node {node.name!r} ({node.op_type}): the rank of {value.name!r} is unknown; "
            "infer the model's shapes first"
        )
    dims = value.const_value.shape if value.const_value is not None else value.shape
    assert dims is not None
    shape = [dim if isinstance(dim, int) else 1 for dim in dims]
    if value.const_value is None and len(shape) > 1 and not _contracts_axis_0(node, shape, index):
        shape[0] = 1
    return tuple(shape)


def _contracts_axis_0(node: ir.Node, shape: list[int], index: int) -> bool:
    """Whether axis 0 of an operand is not the batch but an axis of the matrix product."""
    if node.op_type == "Gemm":
        return index == 1 or bool(int_attribute(node, "transA", 0))
    return node.op_type == "MatMul" and index == 1 and len(shape) == 2


def _attribute_ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def _conv(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Side, Side]:
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
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    upper: bool,
) -> tuple[int, ...]:
    """Explicit pads of ``SAME_UPPER`` and ``SAME_LOWER``: ``ceil(size / stride)`` positions."""
    small, large = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small.append(total // 2)
        large.append(total - total // 2)
    return (*small, *large) if upper else (*large, *small)


def _conv_transpose(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Side, Side]:
    return geometry.transposed_convolution(a, b)


def _matmul(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Side, Side]:
    return geometry.matrix_product(a, b)


def _gemm(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Side, Side]:
    transpose_a, transpose_b = int_attribute(node, "transA", 0), int_attribute(node, "transB", 0)
    return geometry.matrix_product(a, b, bool(transpose_a), bool(transpose_b))


_Build = Callable[[ir.Node, tuple[int, ...], tuple[int, ...]], tuple[Side, Side]]

_GEOMETRY: Final[dict[str, _Build]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
