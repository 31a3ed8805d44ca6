"""The grid of codes in a file: steps and zero points that a node reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op
from onnx_cgmq.inspection.patterns.codes import QUANTIZE_DOMAINS
from onnx_cgmq.inspection.patterns.qdq import cast_and_multiply

_Ints = npt.NDArray[np.int64]

GIVE: Final = "give a model with QuantizeLinear and DequantizeLinear, or the plan beside it"
"""What to do about a file that can't be taken apart."""


@dataclass(frozen=True, eq=False)
class FileGrid:
    """The grid of codes in a file.

    Attributes:
        step: The step: float32, ``()``, or one number for each channel.
        zero_point: The zero point, int64, likewise; in the codes of the file.
        axis: The axis of the channels; ``None`` if there is one step.
    """

    step: npt.NDArray[np.float32]
    zero_point: _Ints
    axis: int | None

    @classmethod
    def of(
        cls, step: npt.NDArray[Any], zero_point: npt.NDArray[Any], axis: int, rank: int
    ) -> FileGrid:
        """Makes a grid of what a node reads; ``axis`` may be negative."""
        shape = () if step.size == 1 else (step.size,)
        zeros = np.broadcast_to(zero_point.astype(np.int64).reshape(-1), (step.size,))
        steps = step.astype(np.float32).reshape(shape)
        return cls(steps, zeros.reshape(shape), axis % max(1, rank) if shape else None)

    def is_same(self, other: FileGrid) -> bool:
        """Whether another grid has the same values for the same codes."""
        steps = np.array_equal(self.step, other.step)
        return steps and np.array_equal(self.zero_point, other.zero_point)

    def shape_along(self, rank: int) -> list[int]:
        """The shape in which steps broadcast to codes of a rank."""
        return [-1 if i == self.axis else 1 for i in range(rank)] if self.step.ndim else []

    def values(self, codes: _Ints) -> npt.NDArray[np.float32]:
        """The numbers that codes stand for."""
        shape = self.shape_along(codes.ndim)
        step, zero = self.step.reshape(shape), self.zero_point.reshape(shape)
        return np.asarray((codes - zero).astype(np.float32) * step, dtype=np.float32)


def known_value(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of a constant, also of a product of two constants, as scales of biases are."""
    known = constant_value(value)
    node = None if value is None else value.producer()
    if known is not None or node is None or standard_op(node) != "Mul":
        return known
    factors = [constant_value(factor) for factor in node.inputs]
    if factors[0] is None or factors[1] is None:
        return None
    return np.asarray(factors[0] * factors[1])


def is_dequantize(node: ir.Node) -> bool:
    """Says whether a node is DequantizeLinear."""
    return node.op_type == "DequantizeLinear" and node.domain in QUANTIZE_DOMAINS


def grid_of(node: ir.Node) -> FileGrid:
    """The grid of a QuantizeLinear or DequantizeLinear.

    Raises:
        ModelError: The data decide it, or it has blocks.
    """
    step = known_value(node.inputs[1])
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    zero_point = np.zeros(()) if zero is None else known_value(zero)
    if step is None or zero_point is None:
        raise ModelError(f"{called(node)} has a step that the data decide; {GIVE}")
    if step.ndim > 1:
        raise ModelError(f"{called(node)} has a step for each block, which encodings can't say")
    return FileGrid.of(step, zero_point, int_attribute(node, "axis", 1), _rank(node.inputs[0]))


def unpacked(node: ir.Node) -> tuple[ir.Node, FileGrid] | None:
    """The Cast and the grid of ``Mul <- [Sub | Relu] <- Cast``; ``None`` for any other node."""
    if cast_and_multiply(node) is None:
        return None
    for value, factor in (node.inputs[:2], node.inputs[1::-1]):
        above, step = None if value is None else value.producer(), known_value(factor)
        zero_point = None
        if above is not None and standard_op(above) in ("Sub", "Relu"):
            zero_point = known_value(above.inputs[1]) if len(above.inputs) > 1 else None
            above = None if above.inputs[0] is None else above.inputs[0].producer()
        if above is not None and standard_op(above) == "Cast" and step is not None:
            zero_point = np.zeros(()) if zero_point is None else zero_point
            varying = [i - step.ndim for i, size in enumerate(step.shape) if size > 1]
            axis = varying[0] if varying else 0
            return above, FileGrid.of(step, zero_point, axis, _rank(above.inputs[0]))
    return None


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)
