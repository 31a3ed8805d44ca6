"""The gated tensors of a model beside their plans: what every form is written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.contract.plan import BitPlan, TensorPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.writing.codes import (
    FloatArray,
    GridCodes,
    fits_int32,
    grid_codes,
    has_integer_kernel,
    kernel_step,
    quantized_values,
)
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.storage import WeightTypes

WriteBias = Callable[[NodeWriter, TensorPlan, FloatArray, FloatArray | None], ir.Value]
"""Writes a bias of given values; the last argument is the step of the accumulator that it is added
to (``None`` for a float kernel)."""


@dataclass(frozen=True, eq=False)
class GatedTensor:
    """One gated quantizer and what was learned for it.

    Attributes:
        node: The quantizer in the gated graph.
        spec: What it is.
        plan: What it is to become.
    """

    node: ir.Node
    spec: QuantizerSpec
    plan: TensorPlan

    @property
    def name(self) -> str:
        """Name of the float tensor."""
        return self.spec.tensor

    @property
    def source(self) -> ir.Value:
        """The float value that is quantized."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @contextmanager
    def values(self) -> Iterator[FloatArray]:
        """Float values of a weight or bias: those of the plan, or else of the gated model."""
        if self.plan.values is not None:
            yield np.asarray(self.plan.values, dtype=np.float32)
            return
        constant = self.source.const_value
        if constant is None:
            raise ModelError(f"{self.name!r} is not an initializer of the gated model")
        with reading(constant) as array:
            yield np.asarray(array, dtype=np.float32)

    def codes(self) -> GridCodes | None:
        """The codes of a weight on its widest grid; ``None`` if any entry of it is float."""
        if self.plan.grid_width == FLOAT_BITS:
            return None
        with self.values() as values:
            return grid_codes(self.spec, self.plan, values)

    def float_value(self, emit: NodeWriter) -> ir.Value:
        """A weight as a float initializer: the one that is there, if nothing has changed it."""
        if self.plan.is_float and self.plan.values is None:
            return self.source
        with self.values() as values:
            return emit.constant("values", quantized_values(self.plan, values))

    def replace(self, written: ir.Value) -> None:
        """Lets all readers of the quantizer that are left read a value instead."""
        self.node.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)


WriteTensor = Callable[[NodeWriter, GatedTensor], ir.Value]
"""Writes a weight or an activation."""


class GatedTensors:
    """All gated tensors of a model.

    Attributes:
        model: The gated model.
        graph: Its graph, which the writers change.
        types: Types that its weights may be stored in.
    """

    def __init__(self, model: ir.Model, plan: BitPlan) -> None:
        """Matches the quantizers of a model with their plans.

        Raises:
            ModelError: The model has no gates, or the plan does not fit it.
        """
        quantizers = quantizer_nodes(model)
        _check(quantizers, plan)
        self.model = model
        self.graph = model.graph
        self.types = WeightTypes.of(model)
        self._tensors = {
            node: GatedTensor(node, spec, plan.tensors[name])
            for name, (node, spec) in quantizers.items()
        }

    @property
    def specs(self) -> dict[str, QuantizerSpec]:
        """Descriptions by tensor name, in graph order."""
        return {tensor.name: tensor.spec for tensor in self._tensors.values()}

    def of_role(self, *roles: Role) -> list[GatedTensor]:
        """Tensors of some roles, in graph order."""
        return [tensor for tensor in self._tensors.values() if tensor.spec.role in roles]

    def of(self, value: ir.Value | None) -> GatedTensor | None:
        """The tensor whose quantizer makes a value (its output or its step)."""
        producer = value.producer() if value is not None else None
        return self._tensors.get(producer) if producer is not None else None

    def write_biases(self, write: WriteBias) -> None:
        """Replaces the quantizers of biases, and the rounding to steps of accumulators.

        To be called first: the steps come from the quantizers of the operands.

        Args:
            write: Writes a bias once for each accumulator, and once for all float kernels.
        """
        for tensor in self.of_role(Role.BIAS):
            with tensor.values() as values:
                self._write_bias(tensor, values, write)
            self.graph.remove(tensor.node, safe=True)

    def write(self, role: Role, write: WriteTensor) -> None:
        """Replaces the quantizers of a role, each by one value for all of its readers."""
        for tensor in self.of_role(role):
            tensor.replace(write(NodeWriter(tensor.node, tensor.name), tensor))
            self.graph.remove(tensor.node, safe=True)

    def _write_bias(self, tensor: GatedTensor, values: FloatArray, write: WriteBias) -> None:
        readers = [use.node for use in tensor.node.outputs[0].uses()]
        accumulators = [reader for reader in readers if reader.op_type == ACCUMULATOR_OP]
        for index, accumulator in enumerate(accumulators):
            emit = NodeWriter(accumulator, tensor.name + (f".{index}" if index else ""))
            written = write(emit, tensor.plan, values, self.accumulator_step(accumulator))
            accumulator.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)
            self.graph.remove(accumulator, safe=True)
        if tensor.node.outputs[0].uses():
            base = f"{tensor.name}.float" if accumulators else tensor.name
            tensor.replace(write(NodeWriter(tensor.node, base), tensor.plan, values, None))

    def accumulator_step(self, accumulator: ir.Node) -> FloatArray | None:
        """Step at which an integer kernel adds a bias.

        Returns:
            Float32 product of the steps of both operands; ``None`` if the kernel is float, be it
            because the bias does not fit into INT32.
        """
        steps = []
        for value in accumulator.inputs[1:3]:
            tensor = self.of(value)
            if tensor is None or not has_integer_kernel(tensor.plan):
                return None
            steps.append(kernel_step(tensor.spec, tensor.plan).reshape(-1))
        product = (steps[0] * steps[1]).astype(np.float32)
        bias = self.of(accumulator.inputs[0])
        assert bias is not None
        with bias.values() as values:
            if not fits_int32(quantized_values(bias.plan, values), product):
                return None
        return product if product.size > 1 else product.reshape(())


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
