"""Writes a plan as a standard ONNX model that stock onnxruntime fuses into integer kernels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.bits import INTEGER_KERNEL_BITS, Granularity, Role, code_range
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.gated_qdq import ACCUMULATOR_OP, GATED_DOMAIN
from onnx_cgmq.graph.insert import quantizer_nodes
from onnx_cgmq.graph.load import ModelLike, load_model
from onnx_cgmq.graph.lower.activations import write_activation
from onnx_cgmq.graph.lower.codes import FloatArray, has_integer_kernel, kernel_step
from onnx_cgmq.graph.lower.emit import Emitter
from onnx_cgmq.graph.lower.metadata import embed_plan
from onnx_cgmq.graph.lower.storage import ir_version
from onnx_cgmq.graph.lower.weights import write_bias, write_weight
from onnx_cgmq.graph.opspec import mac_spec
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec
from onnx_cgmq.plan import BitPlan, TensorPlan


def write_back(gated: ModelLike, plan: BitPlan) -> ir.Model:
    """Writes the widths, ranges and values of a plan into a standard ONNX model.

    The result has no gates and no custom operators: INT2/INT4/INT8 weights at their true size,
    UINT8 activations, INT32 biases (:mod:`~onnx_cgmq.graph.lower.weights` and
    :mod:`~onnx_cgmq.graph.lower.activations` say how each is written, and why it is exact on every
    processor). Without optimizations it computes what the gated graph computes at the plan's gates.

    Args:
        gated: The gated model; it is not changed.
        plan: A plan for its tensors. Values of weights and biases come from the plan, or else from
            the gated model.

    Returns:
        The model, with the plan in its metadata.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
    """
    model = load_model(gated)
    quantizers = quantizer_nodes(model)
    _check(quantizers, plan)
    writer = _Writer(model, quantizers, plan)
    writer.run()
    for function in list(model.functions):
        if function[0] == GATED_DOMAIN:
            del model.functions[function]
    passes.RemoveUnusedNodesPass()(model)
    model.graph.opset_imports.pop(GATED_DOMAIN, None)
    types = {value.dtype for value in model.graph.initializers.values() if value.dtype is not None}
    model.ir_version = max(model.ir_version, *(ir_version(data_type) for data_type in types), 8)
    for key in [key for key in model.metadata_props if key.startswith(f"{GATED_DOMAIN}.")]:
        del model.metadata_props[key]
    embed_plan(model, plan, {name: spec for name, (_, spec) in quantizers.items()})
    return model


def _check(quantizers: Mapping[str, tuple[ir.Node, QuantizerSpec]], plan: BitPlan) -> None:
    if not quantizers:
        raise ModelError("the model has no gates; write_back takes what insert_gates returns")
    missing = sorted(set(quantizers) - set(plan.tensors))
    foreign = sorted(set(plan.tensors) - set(quantizers))
    if missing or foreign:
        raise ModelError(
            f"the plan is not for this model: it lacks {missing or 'nothing'} and has "
            f"{foreign or 'nothing'} in excess"
        )
    for name, (_, spec) in quantizers.items():
        tensor = plan.tensors[name]
        if (tensor.shape, tensor.granularity) != (spec.shape, spec.granularity):
            raise ModelError(
                f"the plan of {name!r} is for {tensor.granularity.value} widths of {tensor.shape}, "
                f"the model has {spec.granularity.value} widths of {spec.shape}"
            )


class _Writer:
    """Replaces every gated quantizer of one model."""

    def __init__(
        self,
        model: ir.Model,
        quantizers: Mapping[str, tuple[ir.Node, QuantizerSpec]],
        plan: BitPlan,
    ) -> None:
        self._opset = model.graph.opset_imports.get("", 1)
        self._quantizers = quantizers
        self._plan = plan
        self._tensor_of = {node: name for name, (node, _) in quantizers.items()}

    def run(self) -> None:
        # What each tensor meets is read off the gated graph, hence before anything is replaced.
        largest = {name: self._largest_activation(name) for name in self._quantizers}
        for role in (Role.BIAS, Role.WEIGHT, Role.ACTIVATION):
            for name, (node, spec) in self._quantizers.items():
                if spec.role is role:
                    self._write(name, node, spec, largest[name])

    def _write(self, name: str, node: ir.Node, spec: QuantizerSpec, largest: int) -> None:
        tensor = self._plan.tensors[name]
        emit = Emitter(node, name)
        if spec.role is Role.BIAS:
            self._write_bias(node, tensor)
        else:
            if spec.role is Role.WEIGHT:
                values = _values(node, tensor)
                written = write_weight(emit, spec, tensor, values, self._opset, largest)
            else:
                x = node.inputs[0]
                assert x is not None
                written = write_activation(emit, tensor, x)
            node.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)
        emit.graph.remove(node, safe=True)

    def _quantizer_of(self, value: ir.Value | None) -> tuple[QuantizerSpec, TensorPlan] | None:
        """Quantizer that makes a value (its output or its step)."""
        producer = value.producer() if value is not None else None
        name = self._tensor_of.get(producer) if producer is not None else None
        return None if name is None else (self._quantizers[name][1], self._plan.tensors[name])

    def _largest_activation(self, name: str) -> int:
        """Largest UINT8 code that the integer kernels of a weight multiply it with; 0 for none."""
        node, spec = self._quantizers[name]
        if spec.role is not Role.WEIGHT:
            return 0
        largest = 0
        for use in node.outputs[0].uses():
            operator = mac_spec(use.node)
            if operator is None:
                continue
            for index in operator.operands:
                other = self._quantizer_of(use.node.inputs[index])
                if other is None or other[0].role is not Role.ACTIVATION:
                    continue
                width = other[1].grid_width
                if other[0].granularity is Granularity.TENSOR and width <= INTEGER_KERNEL_BITS:
                    largest = max(largest, code_range(width, other[1].form)[1])
        return largest

    def _write_bias(self, node: ir.Node, tensor: TensorPlan) -> None:
        values = _values(node, tensor)
        accumulators = [
            use.node for use in node.outputs[0].uses() if use.node.op_type == ACCUMULATOR_OP
        ]
        for index, accumulator in enumerate(accumulators):
            emit = Emitter(accumulator, tensor.name + (f".{index}" if index else ""))
            written = write_bias(emit, tensor, values, self._accumulator_step(accumulator))
            accumulator.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)
            accumulator.graph.remove(accumulator, safe=True)  # type: ignore[union-attr]
        if node.outputs[0].uses():
            base = f"{tensor.name}.float" if accumulators else tensor.name
            written = write_bias(Emitter(node, base), tensor, values, None)
            node.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)

    def _accumulator_step(self, accumulator: ir.Node) -> FloatArray | None:
        """Float32 product of the steps of both operands; ``None`` if the kernel is float."""
        steps = []
        for value in accumulator.inputs[1:3]:
            quantizer = self._quantizer_of(value)
            if quantizer is None or not has_integer_kernel(quantizer[1]):
                return None
            steps.append(kernel_step(*quantizer).reshape(-1))
        product = (steps[0] * steps[1]).astype(np.float32)
        return product if product.size > 1 else product.reshape(())


def _values(node: ir.Node, tensor: TensorPlan) -> FloatArray:
    """Float values of a weight or bias: those of the plan, or else of the gated model."""
    if tensor.values is not None:
        return np.asarray(tensor.values, dtype=np.float32)
    value = node.inputs[0]
    assert value is not None
    if value.const_value is None:
        raise ModelError(f"{tensor.name!r} is not an initializer of the gated model")
    return np.asarray(value.const_value.numpy(), dtype=np.float32)
