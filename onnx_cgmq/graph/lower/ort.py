"""Writes a plan as a standard ONNX model that stock onnxruntime fuses into integer kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.bits import Granularity, Role, code_range
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.gating.gated_qdq import ACCUMULATOR_OP, GATED_DOMAIN
from onnx_cgmq.graph.gating.gates import quantizer_nodes
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec
from onnx_cgmq.graph.lower.activations import write_float_activation, write_integer_activation
from onnx_cgmq.graph.lower.codes import FloatArray, has_integer_kernel, kernel_step
from onnx_cgmq.graph.lower.emit import Emitter
from onnx_cgmq.graph.lower.metadata import embed_plan
from onnx_cgmq.graph.lower.sink import sink_dequantization
from onnx_cgmq.graph.lower.storage import ir_version
from onnx_cgmq.graph.lower.weights import write_bias, write_float_weight, write_integer_weight
from onnx_cgmq.graph.opspec import mac_spec
from onnx_cgmq.graph.sizes import SHAPES_KEY
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
        The model, with the plan in its metadata. What the model says of itself stays there; notes
        of exporters at its nodes do not.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
    """
    model = load_model(gated)
    quantizers = quantizer_nodes(model)
    _check(quantizers, plan)
    writer = _Writer(model, quantizers, plan)
    writer.run()
    sink_dequantization(model.graph)
    for function in list(model.functions):
        if function[0] == GATED_DOMAIN:
            del model.functions[function]
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # stack traces of exporters, above all
    model.graph.opset_imports.pop(GATED_DOMAIN, None)
    types = {value.dtype for value in model.graph.initializers.values() if value.dtype is not None}
    model.ir_version = max(model.ir_version, *(ir_version(data_type) for data_type in types), 8)
    for key in list(model.metadata_props):
        if key.startswith(f"{GATED_DOMAIN}.") and key != SHAPES_KEY:
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
        self._graph = model.graph
        self._opset = model.graph.opset_imports.get("", 1)
        self._quantizers = quantizers
        self._plan = plan
        self._tensor_of = {node: name for name, (node, _) in quantizers.items()}

    def run(self) -> None:
        # What each tensor meets is read off the gated graph, hence before anything is replaced.
        self._integer = {node for node in self._graph if self._runs_in_integers(node)}
        self._largest = {name: self._largest_activation(name) for name in self._quantizers}
        for role in (Role.BIAS, Role.WEIGHT, Role.ACTIVATION):
            for name, (node, spec) in self._quantizers.items():
                if spec.role is role:
                    self._write(name, node, spec)

    def _write(self, name: str, node: ir.Node, spec: QuantizerSpec) -> None:
        tensor = self._plan.tensors[name]
        if spec.role is Role.BIAS:
            self._write_bias(node, tensor)
        else:
            uses = tuple(node.outputs[0].uses())
            codes = spec.role is Role.ACTIVATION and self._is_uint8(spec, tensor)
            integer = [use for use in uses if self._reads_codes(use.node, codes)]
            others = [use for use in uses if not self._reads_codes(use.node, codes)]
            if integer:
                written = self._write_integer(Emitter(node, name), node, spec, tensor)
                for user, index in integer:
                    user.replace_input_with(index, written)
            if others:
                emit = Emitter(node, f"{name}.float" if integer else name)
                written = self._write_float(emit, node, spec, tensor)
                node.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _reads_codes(self, reader: ir.Node, codes: bool) -> bool:
        """Whether a node is to read integer codes: MACs in integers, and what has no MACs.

        Args:
            reader: The node.
            codes: Whether it reads an activation that has them.
        """
        return reader in self._integer or (codes and mac_spec(reader) is None)

    @staticmethod
    def _is_uint8(spec: QuantizerSpec, tensor: TensorPlan) -> bool:
        return spec.granularity is Granularity.TENSOR and has_integer_kernel(tensor)

    def _write_integer(
        self, emit: Emitter, node: ir.Node, spec: QuantizerSpec, tensor: TensorPlan
    ) -> ir.Value:
        if spec.role is Role.ACTIVATION:
            return write_integer_activation(emit, tensor, _first_input(node))
        largest = self._largest[tensor.name]
        with _values(node, tensor) as values:
            return write_integer_weight(emit, spec, tensor, values, self._opset, largest)

    def _write_float(
        self, emit: Emitter, node: ir.Node, spec: QuantizerSpec, tensor: TensorPlan
    ) -> ir.Value:
        if spec.role is Role.ACTIVATION:
            return write_float_activation(emit, tensor, _first_input(node))
        if tensor.is_float and tensor.values is None:
            return _first_input(node)
        with _values(node, tensor) as values:
            return write_float_weight(emit, spec, tensor, values, self._opset)

    def _quantizer_of(self, value: ir.Value | None) -> tuple[QuantizerSpec, TensorPlan] | None:
        """Quantizer that makes a value (its output or its step)."""
        producer = value.producer() if value is not None else None
        name = self._tensor_of.get(producer) if producer is not None else None
        return None if name is None else (self._quantizers[name][1], self._plan.tensors[name])

    def _runs_in_integers(self, node: ir.Node) -> bool:
        """Whether a node can run in an integer kernel: both operands on grids that it takes."""
        operator = mac_spec(node)
        if operator is None or not operator.integer_kernel(node):
            return False
        for index in operator.operands:
            quantizer = self._quantizer_of(node.inputs[index])
            if quantizer is None or not has_integer_kernel(quantizer[1]):
                return False
            spec = quantizer[0]
            if spec.role is Role.ACTIVATION and not self._is_uint8(spec, quantizer[1]):
                return False
        return True

    def _largest_activation(self, name: str) -> int:
        """Largest UINT8 code that integer kernels multiply a tensor with."""
        largest = 0
        for node, read in self._quantizers[name][0].outputs[0].uses():
            operator = mac_spec(node) if node in self._integer else None
            for index in operator.operands if operator is not None else ():
                other = self._quantizer_of(node.inputs[index])
                if index != read and other is not None:
                    largest = max(largest, code_range(other[1].grid_width, other[1].form)[1])
        return largest

    def _write_bias(self, node: ir.Node, tensor: TensorPlan) -> None:
        with _values(node, tensor) as values:
            self._write_bias_values(node, tensor, values)

    def _write_bias_values(self, node: ir.Node, tensor: TensorPlan, values: FloatArray) -> None:
        accumulators = [
            use.node for use in node.outputs[0].uses() if use.node.op_type == ACCUMULATOR_OP
        ]
        for index, accumulator in enumerate(accumulators):
            emit = Emitter(accumulator, tensor.name + (f".{index}" if index else ""))
            written = write_bias(emit, tensor, values, self._accumulator_step(accumulator))
            accumulator.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)
            self._graph.remove(accumulator, safe=True)
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


def _first_input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


@contextmanager
def _values(node: ir.Node, tensor: TensorPlan) -> Iterator[FloatArray]:
    """Float values of a weight or bias: those of the plan, or else of the gated model."""
    if tensor.values is not None:
        yield np.asarray(tensor.values, dtype=np.float32)
        return
    constant = _first_input(node).const_value
    if constant is None:
        raise ModelError(f"{tensor.name!r} is not an initializer of the gated model")
    with reading(constant) as array:
        yield np.asarray(array, dtype=np.float32)
