"""MAC nodes with constant weights, whose output and input channels can be scaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.affine import Constant
from onnx_cgmq.graph.nodes import int_attribute, standard_op


@dataclass(frozen=True)
class ConstantMac:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight, and a constant bias if any.

    Attributes:
        node: The node itself.
        weight: The constant weight of the node.
        axis: The channel axis of the output.
        rank: Number of axes of the output.
        group: Number of groups into which the channels are split.
        channels: Number of channels of the output.
    """

    node: ir.Node
    weight: ir.Value
    axis: int
    rank: int
    group: int
    channels: int

    @classmethod
    def of(cls, node: ir.Node) -> ConstantMac | None:
        """Describes a node, or returns ``None`` if it is no such node."""
        op = standard_op(node)
        if op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return None
        weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
        if weight is None or weight.const_value is None or weight.const_value.size == 0:
            return None
        if bias is not None and bias.const_value is None:
            return None
        shape, group = weight.const_value.shape.numpy(), int_attribute(node, "group", 1)
        if op == "Conv":
            return cls(node, weight, 1, len(shape), group, shape[0])
        if op == "ConvTranspose":
            return cls(node, weight, 1, len(shape), group, shape[1] * group)
        if op == "Gemm":
            return cls(node, weight, 1, 2, 1, shape[0 if int_attribute(node, "transB", 0) else 1])
        rank = None if node.outputs[0].shape is None else len(node.outputs[0].shape)
        if len(shape) != 2 or rank is None or rank < 2:
            return None
        return cls(node, weight, rank - 1, rank, 1, shape[1])

    @property
    def bias(self) -> ir.Value | None:
        """The bias of the node, if it has one."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        assert self.weight.const_value is not None
        kernels = self.weight.const_value.size // self._elements
        return kernels // self.channels * self.group

    def kernels(self) -> Constant:
        """The weight in one layout for all operators, float64.

        Its axes are groups, output channels of a group, input channels of a group, and the elements
        of a kernel.
        """
        assert self.weight.const_value is not None
        weight = self.weight.const_value.numpy().astype(np.float64)
        if self._is_transposed:
            weight = weight.T
        grouped = weight.reshape(self.group, -1, weight.shape[1], self._elements)
        return grouped if standard_op(self.node) == "Conv" else grouped.swapaxes(1, 2)

    def stored(self, kernels: Constant) -> Constant:
        """The array that the node stores for such :meth:`kernels`."""
        assert self.weight.const_value is not None
        if standard_op(self.node) != "Conv":
            kernels = kernels.swapaxes(1, 2)
        stored = kernels[0, :, :, 0].T if self._is_transposed else kernels
        return np.ascontiguousarray(stored).reshape(self.weight.const_value.shape.numpy())

    def scaled_outputs(self, scale: Constant) -> Constant:
        """The array to store if each output channel is to be multiplied by its factor."""
        return self.stored(self.kernels() * scale.reshape(self.group, -1, 1, 1))

    def scaled_inputs(self, scale: Constant) -> Constant:
        """The array to store if each input channel is to be multiplied by its factor."""
        return self.stored(self.kernels() * scale.reshape(self.group, 1, -1, 1))

    @property
    def _is_transposed(self) -> bool:
        """Whether a Gemm stores output channels first."""
        return standard_op(self.node) == "Gemm" and bool(int_attribute(self.node, "transB", 0))

    @property
    def _elements(self) -> int:
        """Number of elements of a kernel."""
        assert self.weight.const_value is not None
        return int(np.prod(self.weight.const_value.shape.numpy()[2:], dtype=np.int64))
