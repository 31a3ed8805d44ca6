"""Nodes that scale and shift their input by constants: ``y = scale * x + shift``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.nodes import float_attribute, int_attribute, standard_op

Constant = npt.NDArray[np.float64]

_BATCH_NORM_EPSILON: Final = 1e-5  # the default of the ONNX standard
_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Affine:
    """The map ``y = scale * x + shift`` that a node applies to its input ``x``.

    Attributes:
        source: The value ``x`` that the node reads.
        scale: The factor, float64, so that folding it adds no rounding error of its own. Its shape
            broadcasts to that of ``source``.
        shift: The number added afterwards, float64, of a shape like that of ``scale``.
        channel_axis: The axis of ``source`` along which ``scale`` and ``shift`` run, if they are
            vectors that do not broadcast from the right (BatchNormalization).
    """

    source: ir.Value
    scale: Constant
    shift: Constant
    channel_axis: int | None = None

    def along(self, axis: int, rank: int, size: int) -> tuple[Constant, Constant] | None:
        """Returns scale and shift as vectors along one axis.

        Args:
            axis: Axis of the value, counted from 0.
            rank: Number of axes of the value.
            size: Size of the value along the axis.

        Returns:
            Two float64 arrays ``[size]``, or ``None`` if one of them varies along another axis.
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
    """Returns the affine map that a node computes, or ``None`` if it computes anything else.

    Affine are Add, Sub, Mul and Div with one constant operand, and BatchNormalization in inference
    mode.
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
        return _with_right_constant(op, left, constant)
    constant = _constant(left)
    return None if constant is None else _with_left_constant(op, constant, right)


def _with_right_constant(op: str, x: ir.Value, c: Constant) -> Affine | None:
    one, zero = np.ones(()), np.zeros(())
    if op == "Add":
        return Affine(x, one, c)
    if op == "Sub":
        return Affine(x, one, -c)
    if op == "Mul":
        return Affine(x, c, zero)
    return Affine(x, 1 / c, zero) if np.all(c != 0) else None


def _with_left_constant(op: str, c: Constant, x: ir.Value) -> Affine | None:
    if op == "Sub":
        return Affine(x, -np.ones(()), c)
    return None if op == "Div" else _with_right_constant(op, x, c)


def _batch_norm(node: ir.Node) -> Affine | None:
    x, *rest = node.inputs
    if x is None or int_attribute(node, "training_mode", 0) or len(rest) != 4:
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None  # it updates running statistics: training mode before opset 14
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
