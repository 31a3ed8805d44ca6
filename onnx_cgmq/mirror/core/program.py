"""The program that a graph is compiled to: a flat list of steps over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.core.place import Place


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        call: Function that runs the node on its inputs.
        inputs: Slots of the inputs; slot 0 always holds ``None``.
        host: Positions of the inputs that must be converted to Python values first.
        outputs: Slots of the outputs.
        free: Slots that no later step reads.
        label: Operator, node and opset, for messages.
    """

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    host: tuple[int, ...]
    outputs: tuple[int, ...]
    free: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class HeldConstant:
    """A constant that the module holds.

    Attributes:
        slot: Slot from which the program reads the constant.
        tensor: Value of the constant.
        is_parameter: Whether it is learned, because it is a float tensor of the model.
    """

    slot: int
    tensor: ir.TensorProtocol
    is_parameter: bool


@dataclass(frozen=True)
class Program:
    """A compiled model.

    Attributes:
        steps: The steps in order.
        template: Initial content of the slots: ``None``, or a Python value made of a constant.
        inputs: Slot of every graph input, by name.
        outputs: Slot of every graph output, by name.
        constants: The constants that the module must hold, by name.
        slot_of: Slot of every named value of the main graph.
        host_types: Types of the slots that hold Python numbers or lists instead of tensors.
        place: Where the steps compute.
    """

    steps: tuple[Step, ...]
    template: tuple[Any, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    constants: Mapping[str, HeldConstant]
    slot_of: Mapping[str, int]
    host_types: Mapping[int, torch.dtype]
    place: Place


@dataclass(frozen=True)
class Body:
    """A compiled subgraph.

    Attributes:
        steps: The steps in order.
        template: Initial content of the slots.
        inputs: Slots of the subgraph's inputs.
        captures: Slots of the values that the subgraph reads from the graphs around it.
        outputs: Slots of its outputs.
        output_types: Element type and shape of every output, as far as the graph gives them.
        place: Where the steps compute.
    """

    steps: tuple[Step, ...]
    template: tuple[Any, ...]
    inputs: tuple[int, ...]
    captures: tuple[int, ...]
    outputs: tuple[int, ...]
    output_types: tuple[tuple[ir.DataType | None, ir.Shape | None], ...]
    place: Place


class BoundBody:
    """A subgraph as a function. Captured values are given once, inputs at every call."""

    def __init__(self, body: Body, captured: Sequence[Any]) -> None:
        """Binds the captured values, which are in the order of ``body.captures``."""
        self._body = body
        self._slots = list(body.template)
        for slot, value in zip(body.captures, captured, strict=True):
            self._slots[slot] = value

    @property
    def output_count(self) -> int:
        """Number of outputs of the subgraph."""
        return len(self._body.outputs)

    def __call__(self, *inputs: Any) -> list[Any]:
        """Runs the subgraph.

        Raises:
            ValueError: If there are too few or too many inputs.
            ModelError: If a step fails.
        """
        body = self._body
        if len(inputs) != len(body.inputs):
            raise ValueError(f"its subgraph has {len(body.inputs)} inputs, {len(inputs)} are given")
        slots = self._slots.copy()
        for slot, value in zip(body.inputs, inputs, strict=True):
            slots[slot] = value
        run_steps(body.steps, slots)
        return [slots[slot] for slot in body.outputs]

    def no_items(self, output: int, axis: int) -> Tensor:
        """Makes the value of an output that is stacked along an axis, if there were no calls.

        Unknown sizes are 0, as in onnxruntime.

        Raises:
            ValueError: If the graph does not give the output's type and rank.
        """
        dtype, shape = self._body.output_types[output]
        if dtype is None or shape is None:
            raise ValueError(
                f"its subgraph never ran, and the subgraph's output {output} has no type or shape; "
                "infer shapes first, see prepare()"
            )
        sizes = [size if isinstance(size, int) else 0 for size in shape]
        sizes.insert(axis + (len(sizes) + 1 if axis < 0 else 0), 0)
        return torch.zeros(sizes, dtype=TORCH_DTYPES[dtype], device=self._body.place.device)


def call_with_bodies(
    handler: Callable[..., Any], bodies: Sequence[Body | None], count: int, *arguments: Any
) -> Any:
    """Runs a node that has subgraphs.

    Args:
        handler: Function that takes the bodies, then the node's inputs.
        bodies: The subgraphs of the node.
        count: How many of the arguments are inputs of the node.
        *arguments: The inputs, then the values that each body captures.
    """
    bound: list[BoundBody | None] = []
    start = count
    for body in bodies:
        if body is None:
            bound.append(None)
            continue
        end = start + len(body.captures)
        bound.append(BoundBody(body, arguments[start:end]))
        start = end
    return handler(*bound, *arguments[:count])


def run_steps(steps: Sequence[Step], slots: list[Any], kept: Collection[int] | None = None) -> None:
    """Runs the steps of a program or a body.

    Args:
        steps: The steps.
        slots: The content of the slots, changed in place.
        kept: Slots that must not be freed.

    Raises:
        ModelError: If a step fails; the message names the node.
    """
    for step in steps:
        arguments = [slots[index] for index in step.inputs]
        for position in step.host:
            arguments[position] = arguments[position].tolist()
        try:
            result = step.call(*arguments)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ModelError(f"{step.label} failed: {error}") from error
        if isinstance(result, tuple):
            for index, value in zip(step.outputs, result, strict=False):
                slots[index] = value
        else:
            slots[step.outputs[0]] = result
        for index in step.free:
            if kept is None or index not in kept:
                slots[index] = None
