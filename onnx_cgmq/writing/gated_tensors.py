"""Pairs every gated tensor of a model with its plan; every form is written from these pairs."""

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
    fits_integer_kernels,
    grid_codes,
    quantized_values,
    stored_step,
)
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.storage import WeightTypes

WriteBias = Callable[[NodeWriter, TensorPlan, FloatArray, FloatArray | None], ir.Value]
"""Writes a bias: ``(emit, plan, values, step) -> the float value that nodes read``.

``step`` is one unit of the accumulator that the bias is added to, or ``None`` for a float kernel.
"""


@dataclass(frozen=True, eq=False)
class GatedTensor:
    """One tensor with a gated quantizer, and its plan.

    Attributes:
        node: The quantizer in the gated graph.
        spec: The spec of the quantizer.
        plan: What was learned about the tensor.
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
        """Reads the float values of a weight or bias, from the plan or else the gated model.

        Yields:
            The values, float32, in the shape of the tensor. External data leaves memory again when
            the context ends.

        Raises:
            ModelError: The tensor is an activation.
        """
        if self.plan.values is not None:
            yield np.asarray(self.plan.values, dtype=np.float32)
            return
        constant = self.source.const_value
        if constant is None:
            raise ModelError(
                f"{self.name!r} is not an initializer of the gated model, so it has no values to "
                "write; make the plan for this gated model"
            )
        with reading(constant) as array:
            yield np.asarray(array, dtype=np.float32)

    def codes(self) -> GridCodes | None:
        """Computes the codes of a weight on its widest grid; ``None`` if any element is float."""
        if self.plan.grid_width == FLOAT_BITS:
            return None
        with self.values() as values:
            return grid_codes(self.spec, self.plan, values)

    def float_value(self, emit: NodeWriter) -> ir.Value:
        """Writes a weight as a float initializer, or returns its own one if nothing changed it."""
        if self.plan.is_float and self.plan.values is None:
            return self.source
        with self.values() as values:
            return emit.constant("values", quantized_values(self.plan, values))

    def replace(self, written: ir.Value) -> None:
        """Makes all nodes that still read the quantizer read a written value instead."""
        self.node.outputs[0].replace_all_uses_with(written, replace_graph_outputs=True)


WriteTensor = Callable[[NodeWriter, GatedTensor], ir.Value]
"""Writes a weight or an activation, and returns the value that nodes read."""


class GatedTensors:
    """All gated tensors of a model.

    Attributes:
        model: The gated model.
        graph: The graph of the model. The forms change it.
        types: The integer types in which weights may be stored.
    """

    def __init__(self, model: ir.Model, plan: BitPlan) -> None:
        """Pairs the quantizers of a model with their plans.

        Args:
            model: The gated model.
            plan: The plan of the model.

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
        """The specs of all quantizers by tensor name, in graph order."""
        return {tensor.name: tensor.spec for tensor in self._tensors.values()}

    def of_role(self, *roles: Role) -> list[GatedTensor]:
        """Lists the tensors of some roles, in graph order."""
        return [tensor for tensor in self._tensors.values() if tensor.spec.role in roles]

    def of(self, value: ir.Value | None) -> GatedTensor | None:
        """Finds the tensor whose quantizer makes a value: the quantized tensor, or its step."""
        producer = value.producer() if value is not None else None
        return self._tensors.get(producer) if producer is not None else None

    def write_biases(self, write: WriteBias) -> None:
        """Replaces the quantizers of biases, and the nodes that round them for accumulators.

        Call it before :meth:`write`, because the units of accumulators are found through the
        quantizers of the operands.

        Args:
            write: Writes a bias. It is called once for each accumulator, and once for all float
                kernels together.
        """
        for tensor in self.of_role(Role.BIAS):
            with tensor.values() as values:
                self._write_bias(tensor, values, write)
            self.graph.remove(tensor.node, safe=True)

    def write(self, role: Role, write: WriteTensor) -> None:
        """Replaces the quantizers of all tensors of a role.

        Args:
            role: The role.
            write: Writes a tensor once; all nodes that read the tensor then read its result.
        """
        for tensor in self.of_role(role):
            tensor.replace(write(NodeWriter(tensor.node, tensor.name), tensor))
            self.graph.remove(tensor.node, safe=True)

    def _write_bias(self, tensor: GatedTensor, values: FloatArray, write: WriteBias) -> None:
        """Writes one bias for each accumulator, and once for all float kernels together."""
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
        """Returns one unit of the accumulator to which an integer kernel adds a bias.

        Args:
            accumulator: The node of the gated graph that rounds the bias.

        Returns:
            The product of the steps of both operands, float32, ``()`` or ``[C]``. ``None`` if the
            kernel is float, because an operand has more than 8 bits or because the bias does not
            fit into INT32.
        """
        steps = []
        for value in accumulator.inputs[1:3]:
            tensor = self.of(value)
            if tensor is None or not fits_integer_kernels(tensor.plan):
                return None
            steps.append(stored_step(tensor.spec, tensor.plan).reshape(-1))
        product = (steps[0] * steps[1]).astype(np.float32)
        bias = self.of(accumulator.inputs[0])
        assert bias is not None
        with bias.values() as values:
            if not fits_int32(quantized_values(bias.plan, values), product):
                return None
        return product if product.size > 1 else product.reshape(())


def _check(quantizers: Mapping[str, tuple[ir.Node, QuantizerSpec]], plan: BitPlan) -> None:
    """Checks that a plan has exactly the tensors of a model.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
    """
    if not quantizers:
        raise ModelError("the model has no gates; write_back takes what insert_gates returns")
    missing = sorted(set(quantizers) - set(plan.tensors))
    foreign = sorted(set(plan.tensors) - set(quantizers))
    if missing or foreign:
        raise ModelError(
            f"the plan is not for this model: it lacks {missing or 'no tensor'}, and the model "
            f"lacks {foreign or 'no tensor'}; give the plan that was made for this gated model"
        )
    for name, (_, spec) in quantizers.items():
        tensor = plan.tensors[name]
        if (tensor.shape, tensor.granularity) != (spec.shape, spec.granularity):
            raise ModelError(
                f"the plan of {name!r} is for {tensor.granularity.value} widths and the shape "
                f"{tensor.shape}, but the model has {spec.granularity.value} widths and the shape "
                f"{spec.shape}; give the plan that was made for this gated model"
            )
