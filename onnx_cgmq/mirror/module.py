"""The mirror: runs an ONNX graph as a ``torch.nn.Module``, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.mirror.compile.build import compile_model
from onnx_cgmq.mirror.compile.constants import constants_of, gated_nodes, replace_constants
from onnx_cgmq.mirror.core.dtypes import to_torch
from onnx_cgmq.mirror.core.inputs import named_inputs
from onnx_cgmq.mirror.core.parts import Part, run_part, split
from onnx_cgmq.mirror.core.program import Program, run_steps
from onnx_cgmq.mirror.quantizers.blocks import quantizer_of
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import learned_values, tensor_plan
from onnx_cgmq.mirror.torch_state import plain_numbers, plain_torch


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
        self._build(model)

    @plain_torch()
    def _build(self, model: ModelLike) -> None:
        self.model: ir.Model = load_model(model)
        constants = constants_of(self.model)
        self.quantizers: dict[str, GatedQuantizer] = {}
        modules: dict[ir.Node, GatedQuantizer] = {}
        for node, gated in gated_nodes(self.model.graph, constants).items():
            low = None if gated.low is None else to_torch(gated.low)
            module = quantizer_of(gated.spec, low, to_torch(gated.high), to_torch(gated.gate))
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
        return {name: self.get_parameter(key) for name, key in self._parameter_keys.items()}

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
        with self._plain_numbers():
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
        with self._plain_numbers():
            return self.named(dict(enumerate(self._execute(inputs, kept))), values)

    def named(self, values: Mapping[int, Any], names: Sequence[str]) -> dict[str, Tensor]:
        """Tensors by name, from values by slot."""
        found = {}
        for name in names:
            slot = self._program.slot_of[name]
            dtype = self._program.host_types.get(slot)
            found[name] = values[slot]
            if dtype is not None:
                found[name] = torch.tensor(values[slot], dtype=dtype, device=self.device)
        return found

    @contextmanager
    def unquantized(self) -> Iterator[None]:
        """Makes all quantizers pass values on as they are: the mirror then runs in floats."""
        before = {quantizer: quantizer.bypassed for quantizer in self.quantizers.values()}
        try:
            for quantizer in before:
                quantizer.bypassed = True
            yield
        finally:
            for quantizer, bypassed in before.items():
                quantizer.bypassed = bypassed

    @contextmanager
    def shown(self, viewers: Mapping[str, Callable[[Tensor], object]]) -> Iterator[None]:
        """Shows quantized tensors to functions while the graph runs, as they are before rounding.

        So none has to be kept until the end of a run.

        Args:
            viewers: For the name of a quantized tensor, the function that is called with it.
        """
        with ExitStack() as stack:
            for name, viewer in viewers.items():
                hook = partial(_show, viewer)
                stack.enter_context(self.quantizers[name].register_forward_pre_hook(hook))
            yield

    def tensors_of(self, role: Role) -> list[str]:
        """Names of the quantized tensors of a role, in graph order."""
        return [name for name, q in self.quantizers.items() if q.spec.role is role]

    def parts(self, results: Sequence[str] = ()) -> tuple[Part, ...]:
        """Splits the graph into parts, which give the values named, or the outputs if none are."""
        steps = self._program.steps
        roles = (getattr(getattr(step.call, "spec", None), "role", None) for step in steps)
        chosen = {name: self._program.slot_of[name] for name in results} or self._program.outputs
        program = replace(self._program, outputs=chosen)
        return split(program, [role is Role.WEIGHT for role in roles])

    def quantized_in(self, part: Part) -> dict[str, GatedQuantizer]:
        """The quantizers that run in a part, by the name of the tensor that they quantize."""
        calls = {step.call for step in part.steps if isinstance(step.call, GatedQuantizer)}
        return {name: q for name, q in self.quantizers.items() if q in calls}

    def results_of(self, part: Part) -> list[int]:
        """Slots of the values that a part makes, without steps, which the float model has not."""
        quantizers = [step for step in part.steps if isinstance(step.call, GatedQuantizer)]
        steps = {slot for step in quantizers for slot in step.outputs[1:]}
        return [slot for slot in part.exits if slot not in steps and slot not in part.entries]

    def entries(self, inputs: Mapping[str, Tensor] | Tensor) -> dict[int, Any]:
        """The values that go into the first part, by slot, for inputs as in :meth:`forward`."""
        named = named_inputs(inputs, self.input_names, self.device)
        return {self._program.inputs[name]: value for name, value in named.items()}

    def run_part(self, part: Part, entries: Mapping[int, Any]) -> dict[int, Any]:
        """Runs a part of the graph.

        Args:
            part: One of :meth:`parts`.
            entries: The values that go in, by slot: those that came out of the part before.

        Returns:
            The values that come out, by slot.

        Raises:
            ModelError: An operator fails.
        """
        with self._plain_numbers():
            slots = self._slots()
            for slot in part.entries:
                slots[slot] = entries[slot]
            return run_part(part, slots)

    @property
    def device(self) -> torch.device:
        """Where the mirror computes, which ``to()`` changes."""
        return self._program.place.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mirror:
        """Moves what torch does not know of too: ``to()``, ``cuda()`` and others come here."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        place = self._program.place
        place.device = fn(torch.empty(0, device=place.device)).device
        for quantizer in self.quantizers.values():
            quantizer.follow_gate()
        return self

    def _plain_numbers(self) -> AbstractContextManager[None]:
        if torch.compiler.is_compiling():  # it is the caller's to compile in a plain state
            return nullcontext()
        for quantizer in self.quantizers.values():
            quantizer.follow_gate()
        return plain_numbers(self.device)

    def _slots(self) -> list[Any]:
        """The content of all slots before a run: the constants."""
        program = self._program
        slots: list[Any] = list(program.template)
        for name, key in self._parameter_keys.items():
            slots[program.constants[name].slot] = self._parameters[key]
        for name, key in self._buffer_keys.items():
            slots[program.constants[name].slot] = self._buffers[key]
        return slots

    def _execute(self, inputs: Mapping[str, Tensor] | Tensor, kept: set[int] | None) -> list[Any]:
        slots = self._slots()
        for slot, tensor in self.entries(inputs).items():
            slots[slot] = tensor
        run_steps(self._program.steps, slots, kept)
        return slots

    @plain_torch()
    def plan(self) -> BitPlan:
        """Reads the width, range and grid of every gated tensor from its quantizer.

        This changes nothing and counts no cost. :meth:`~onnx_cgmq.learn.guide.Guide.plan` makes a
        plan that keeps a bound, with its cost.

        Returns:
            The plan, for :func:`write_back`. It has no cost. It has the values of those weights and
            biases that differ from the model's.
        """
        parameters = self.value_parameters
        for quantizer in self.quantizers.values():
            quantizer.follow_gate()
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

    @plain_torch()
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
            lambda name: state[name].detach().cpu().numpy().copy() if name in state else None,
        )
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> Mirror:
        """Copies the mirror with its state, such as for ``torch.optim.swa_utils.AveragedModel``.

        A :class:`~onnx_cgmq.learn.guide.Guide` of the mirror does not follow the copy.
        """
        copied = type(self)(self.model)
        memo[id(self)] = copied
        copied._program.place.device = self.device
        for mine, made in zip(self.modules(), copied.modules(), strict=True):
            made.training = mine.training
            for name, buffer in mine.named_buffers(recurse=False):
                setattr(made, name, deepcopy(buffer, memo))
            for name, parameter in mine.named_parameters(recurse=False):
                setattr(made, name, deepcopy(parameter, memo))
        return copied

    def extra_repr(self) -> str:
        """Text for ``print``, on one line."""
        return (
            f"inputs={', '.join(self.input_names)}; outputs={', '.join(self.output_names)}; "
            f"{len(self._program.steps)} nodes, {len(self.quantizers)} quantizers"
        )


def _show(viewer: Callable[[Tensor], object], _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    viewer(arguments[0])
