"""Nodes that scale and shift their input by constants: ``y = scale * x + shift``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.nodes import float_attribute, int_attribute, standard_op

Constant = npt.NDArray[np.float64]

_BATCH_NORM_EPSILON: Final = 1e-5  # of the standard
_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Affine:
    """What a node does to the value it reads.

    Attributes:
        source: That value.
        scale: Factor, of a shape that broadcasts to the value's (float64, so that folding it adds
            no error of its own).
        shift: What is added afterwards, likewise.
        channel_axis: Axis of the value that a vector runs along, where broadcasting from the right
            does not say it (BatchNormalization).
    """

    source: ir.Value
    scale: Constant
    shift: Constant
    channel_axis: int | None = None

    def along(self, axis: int, rank: int, size: int) -> tuple[Constant, Constant] | None:
        """Scale and shift as vectors along one axis, ``None`` if they vary along another one.

        Args:
            axis: Axis of the value, from 0.
            rank: Its number of axes.
            size: Its size along the axis.

        Returns:
            Two arrays ``[size]``.
        """
        if self.channel_axis is not None:
            if self.channel_axis != axis or self.scale.shape != (size,):
                return None
            return self.scale, self.shift
        vectors = []
        for array in (self.scale, self.shift):
            if array.ndim > rank:
                return None
            shape = (1,) * (rank - array.ndim) + array.shape
            if shape[axis] not in (1, size) or array.size != shape[axis]:
                return None
            vectors.append(np.broadcast_to(array.reshape(-1), (size,)))
        return vectors[0], vectors[1]


def affine_of(node: ir.Node) -> Affine | None:
    """What a node scales and shifts, ``None`` if it does anything else.

    Add, Sub, Mul and Div with one constant operand, and BatchNormalization in inference mode.
    """
    op = standard_op(node)
    if op == "BatchNormalization":
        return _batch_norm(node)
    if op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if left is None or right is None:
        return None
    constant = _constant(right)
    if constant is not None:
        return _right(op, left, constant)
    constant = _constant(left)
    return None if constant is None else _left(op, constant, right)


def _right(op: str, x: ir.Value, c: Constant) -> Affine | None:
    one, zero = np.ones(()), np.zeros(())
    if op == "Add":
        return Affine(x, one, c)
    if op == "Sub":
        return Affine(x, one, -c)
    if op == "Mul":
        return Affine(x, c, zero)
    return Affine(x, 1 / c, zero) if np.all(c != 0) else None


def _left(op: str, c: Constant, x: ir.Value) -> Affine | None:
    if op == "Sub":
        return Affine(x, -np.ones(()), c)
    return None if op == "Div" else _right(op, x, c)


def _batch_norm(node: ir.Node) -> Affine | None:
    x, *rest = node.inputs
    if x is None or int_attribute(node, "training_mode", 0) or len(rest) != 4:
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None  # running statistics: training mode before opset 14
    constants = [_constant(value) for value in rest if value is not None]
    gamma, beta, mean, variance = (*constants, None, None, None, None)[:4]
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    deviation = np.sqrt(variance + float_attribute(node, "epsilon", _BATCH_NORM_EPSILON))
    scale = gamma / deviation
    return Affine(x, scale, beta - mean * scale, channel_axis=1)


def _constant(value: ir.Value) -> Constant | None:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _FLOATS or tensor.size == 0:
        return None
    return tensor.numpy().astype(np.float64)
