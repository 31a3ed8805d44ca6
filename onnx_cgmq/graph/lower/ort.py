"""The form ``ort``: what stock onnxruntime loads and fuses into integer kernels.

INT2/INT4/INT8 weights at their true size, UINT8 activations, INT32 biases
(:mod:`~onnx_cgmq.graph.lower.weights` and :mod:`~onnx_cgmq.graph.lower.activations` say how each is
written, and why it is exact on every processor). Without optimizations the result computes what the
gated graph computes.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.bits import Granularity, Role
from onnx_cgmq.graph.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.graph.lower.activations import (
    uint8_grid,
    write_float_activation,
    write_integer_activation,
)
from onnx_cgmq.graph.lower.codes import has_integer_kernel
from onnx_cgmq.graph.lower.emit import Emitter
from onnx_cgmq.graph.lower.gated import GatedTensor, GatedTensors
from onnx_cgmq.graph.lower.saturating import write_hard_sigmoids
from onnx_cgmq.graph.lower.sink import sink_dequantization
from onnx_cgmq.graph.lower.tail import flatten_channels_last
from onnx_cgmq.graph.lower.weights import write_bias, write_float_weight, write_integer_weight
from onnx_cgmq.graph.opspec import mac_spec


def write_ort(tensors: GatedTensors) -> None:
    """Replaces every gated quantizer, in place."""
    _Writer(tensors).run()
    sink_dequantization(tensors.graph)
    write_hard_sigmoids(tensors.graph)
    flatten_channels_last(tensors.graph)


class _Writer:
    """Chooses for every reader of a tensor between codes and floats."""

    def __init__(self, tensors: GatedTensors) -> None:
        # What each tensor meets is read off the gated graph, hence before anything is replaced.
        self._tensors = tensors
        self._integer = {node for node in tensors.graph if self._runs_in_integers(node)}
        weights = tensors.of_role(Role.WEIGHT)
        self._largest = {weight.node: self._largest_activation(weight) for weight in weights}

    def run(self) -> None:
        self._tensors.write_biases(write_bias)
        for role in (Role.WEIGHT, Role.ACTIVATION):
            for tensor in self._tensors.of_role(role):
                self._write(tensor)

    def _write(self, tensor: GatedTensor) -> None:
        node, name = tensor.node, tensor.name
        uses = tuple(node.outputs[0].uses())
        codes = tensor.spec.role is Role.ACTIVATION and _is_uint8(tensor)
        integer = [use for use in uses if self._reads_codes(use.node, codes)]
        others = [use for use in uses if not self._reads_codes(use.node, codes)]
        if integer:
            written = self._write_integer(Emitter(node, name), tensor)
            for user, index in integer:
                user.replace_input_with(index, written)
        if others:
            emit = Emitter(node, f"{name}.float" if integer else name)
            tensor.replace(self._write_float(emit, tensor))
        self._tensors.graph.remove(node, safe=True)

    def _reads_codes(self, reader: ir.Node, codes: bool) -> bool:
        """Whether a node is to read integer codes: MACs in integers, and what has no MACs.

        Args:
            reader: The node.
            codes: Whether it reads an activation that has them.
        """
        return reader in self._integer or (codes and mac_spec(reader) is None)

    def _write_integer(self, emit: Emitter, tensor: GatedTensor) -> ir.Value:
        if tensor.spec.role is Role.ACTIVATION:
            return write_integer_activation(emit, tensor.plan, tensor.source)
        opset, largest = self._tensors.opset, self._largest[tensor.node]
        with tensor.values() as values:
            return write_integer_weight(emit, tensor.spec, tensor.plan, values, opset, largest)

    def _write_float(self, emit: Emitter, tensor: GatedTensor) -> ir.Value:
        if tensor.spec.role is Role.ACTIVATION:
            return write_float_activation(emit, tensor.plan, tensor.source)
        if tensor.plan.is_float and tensor.plan.values is None:
            return tensor.source
        with tensor.values() as values:
            return write_float_weight(emit, tensor.spec, tensor.plan, values, self._tensors.opset)

    def _runs_in_integers(self, node: ir.Node) -> bool:
        """Whether a node can run in an integer kernel: operands on grids, bias in INT32."""
        operator = mac_spec(node)
        if operator is None or not operator.integer_kernel(node):
            return False
        bias = operator.bias_value(node)
        adds = None if bias is None else bias.producer()
        rounded = adds is not None and adds.op_type == ACCUMULATOR_OP
        if adds is not None and rounded and self._tensors.accumulator_step(adds) is None:
            return False
        for index in operator.operands:
            tensor = self._tensors.of(node.inputs[index])
            if tensor is None or not has_integer_kernel(tensor.plan):
                return False
            if tensor.spec.role is Role.ACTIVATION and not _is_uint8(tensor):
                return False
        return True

    def _largest_activation(self, weight: GatedTensor) -> int:
        """Largest UINT8 code that integer kernels multiply a tensor with."""
        largest = 0
        for node, read in weight.node.outputs[0].uses():
            operator = mac_spec(node) if node in self._integer else None
            for index in operator.operands if operator is not None else ():
                other = self._tensors.of(node.inputs[index])
                if index != read and other is not None:
                    largest = max(largest, uint8_grid(other.plan).largest)
        return largest


def _is_uint8(tensor: GatedTensor) -> bool:
    return tensor.spec.granularity is Granularity.TENSOR and has_integer_kernel(tensor.plan)
