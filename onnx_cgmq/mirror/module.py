"""The mirror: runs an ONNX graph as a ``torch.nn.Module``, with gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.errors import DataError, ModelError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.mirror.compile.build import compile_model
from onnx_cgmq.mirror.compile.constants import constants_of, gated_nodes, replace_constants
from onnx_cgmq.mirror.core.dtypes import to_torch
from onnx_cgmq.mirror.core.program import Program, run_steps
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import learned_values, tensor_plan


class Mirror(nn.Module):
    """Runs an ONNX graph in torch, under the names of the graph's values.

    Float constants are parameters, other constants are buffers. Nodes that :func:`insert_gates`
    put into the graph become :class:`GatedQuantizer` modules; a graph without them is the float
    model. Operators take weights as tensors like any other, so a weight may be computed or
    quantized.

    Attributes:
        model: The model that is mirrored.
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs. Those of strings are left out if there are others.
        quantizers: The quantizers by the name of the tensor that they quantize, in graph order.
    """

    def __init__(self, model: ModelLike) -> None:
        """Builds the mirror.

        Args:
            model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``, with or without gates; it is not
                changed.

        Raises:
            ModelError: If the model can't be read.
            UnsupportedOperatorError: If the mirror can't run an operator; the message names all of
                these.
        """
        super().__init__()
        self.model: ir.Model = load_model(model)
        constants = constants_of(self.model)
        self.quantizers: dict[str, GatedQuantizer] = {}
        modules: dict[ir.Node, GatedQuantizer] = {}
        for node, gated in gated_nodes(self.model.graph, constants).items():
            low = None if gated.low is None else to_torch(gated.low)
            module = GatedQuantizer(gated.spec, low, to_torch(gated.high), to_torch(gated.gate))
            key = self._free_name(f"{gated.spec.tensor}_quantizer")
            self.add_module(key, module)
            self.quantizers[gated.spec.tensor] = module
            modules[node] = module
        self._program: Program = compile_model(self.model, constants, modules)
        self._parameter_keys: dict[str, str] = {}
        self._buffer_keys: dict[str, str] = {}
        for name, constant in self._program.constants.items():
            key = self._free_name(name)
            if constant.is_parameter:
                self.register_parameter(key, nn.Parameter(to_torch(constant.tensor)))
                self._parameter_keys[name] = key
            else:
                self.register_buffer(key, to_torch(constant.tensor), persistent=False)
                self._buffer_keys[name] = key
        self.input_names: tuple[str, ...] = tuple(self._program.inputs)
        self.output_names: tuple[str, ...] = tuple(self._program.outputs)

    def _free_name(self, name: str) -> str:
        """Makes a name that torch accepts and that is free, close to a value's name."""
        base = name.replace(".", "_")
        candidate, count = base, 0
        while hasattr(self, candidate):
            count += 1
            candidate = f"{base}_{count}"
        return candidate

    @property
    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by the name of the ONNX value that they hold, in graph order."""
        found = {}
        for name in self._parameter_keys:
            parameter = self.value_parameter(name)
            assert parameter is not None
            found[name] = parameter
        return found

    def value_parameter(self, name: str) -> nn.Parameter | None:
        """The parameter that holds an ONNX value, or ``None`` if none does."""
        key = self._parameter_keys.get(name)
        return None if key is None else self._parameters[key]

    @property
    def value_names(self) -> frozenset[str]:
        """Names of the values that :meth:`run` can return."""
        return frozenset(self._program.slot_of)

    def forward(self, inputs: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
        """Runs the graph.

        Args:
            inputs: Tensors by input name; or one tensor, if the graph has one input.

        Returns:
            The graph's outputs by name.

        Raises:
            DataError: If an input is missing or unknown.
            ModelError: If an operator fails on its inputs; the message names the node.
        """
        slots = self._execute(inputs, None)
        return {name: slots[slot] for name, slot in self._program.outputs.items()}

    def run(
        self, inputs: Mapping[str, Tensor] | Tensor, values: Sequence[str]
    ) -> dict[str, Tensor]:
        """Runs the graph and returns any of its values.

        Args:
            inputs: As in :meth:`forward`.
            values: Names of values of the graph: inputs, constants, intermediate values, outputs.

        Returns:
            The values by name, in the order asked for.

        Raises:
            ModelError: If the graph has no such value, or an operator fails.
            DataError: If an input is missing or unknown.
        """
        unknown = [name for name in values if name not in self._program.slot_of]
        if unknown:
            raise ModelError(f"the graph computes no value named {', '.join(map(repr, unknown))}")
        kept = {self._program.slot_of[name] for name in values}
        slots = self._execute(inputs, kept)
        found = {}
        for name in values:
            slot = self._program.slot_of[name]
            dtype = self._program.host_types.get(slot)
            found[name] = slots[slot] if dtype is None else torch.tensor(slots[slot], dtype=dtype)
        return found

    def _execute(self, inputs: Mapping[str, Tensor] | Tensor, kept: set[int] | None) -> list[Any]:
        program = self._program
        slots: list[Any] = list(program.template)
        for name, key in self._parameter_keys.items():
            slots[program.constants[name].slot] = self._parameters[key]
        for name, key in self._buffer_keys.items():
            slots[program.constants[name].slot] = self._buffers[key]
        for name, tensor in self._named(inputs).items():
            slots[program.inputs[name]] = tensor
        run_steps(program.steps, slots, kept)
        return slots

    def _named(self, inputs: Mapping[str, Tensor] | Tensor) -> Mapping[str, Tensor]:
        if isinstance(inputs, Tensor):
            if len(self.input_names) != 1:
                raise DataError(
                    f"the graph has {len(self.input_names)} inputs; pass a dict with "
                    f"{', '.join(self.input_names)}"
                )
            return {self.input_names[0]: inputs}
        if set(inputs) != set(self.input_names):
            raise DataError(
                f"the graph's inputs are {', '.join(self.input_names) or 'none'}; "
                f"got {', '.join(inputs) or 'none'}"
            )
        return inputs

    def plan(self) -> BitPlan:
        """Reads the width, range and grid of every gated tensor from its quantizer.

        This changes nothing and counts no cost. :meth:`~onnx_cgmq.learn.guide.Guide.plan` makes a
        plan that keeps a bound, with its cost.

        Returns:
            The plan, for :func:`write_back`. It has no cost. It has the values of those weights and
            biases that differ from the model's.
        """
        parameters = self.value_parameters
        learned = {
            name: learned_values(parameters[name], self._program.constants[name].tensor)
            for name in self.quantizers
            if name in parameters
        }
        return BitPlan(
            tensors={
                name: tensor_plan(quantizer, learned.get(name))
                for name, quantizer in self.quantizers.items()
            }
        )

    def to_model(self) -> ir.Model:
        """Copies the model, with the learned weights, ranges and gates as its initializers.

        The copy is a valid ONNX model. onnxruntime runs it with the same outputs, and a mirror of
        it continues from the state of this one.
        """
        model = self.model.clone()
        state: dict[str, Tensor] = dict(self.value_parameters)
        for tensor, quantizer in self.quantizers.items():
            state[f"{tensor}.gate"] = quantizer.gate
            state[f"{tensor}.high"] = quantizer.high
            state[f"{tensor}.low"] = quantizer.low
        replace_constants(
            model,
            lambda name: state[name].detach().numpy().copy() if name in state else None,
        )
        return model

    def extra_repr(self) -> str:
        """Text for ``print``, on one line."""
        return (
            f"inputs={', '.join(self.input_names)}; outputs={', '.join(self.output_names)}; "
            f"{len(self._program.steps)} nodes, {len(self.quantizers)} quantizers"
        )
