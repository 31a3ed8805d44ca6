"""Keeps track of slots and values while a graph is compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror.compile.constants import Constant
from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.core.place import Place
from onnx_cgmq.mirror.core.program import Step

NONE_SLOT = 0
"""The slot that an omitted input reads; it holds ``None``."""


@dataclass(eq=False)
class HostValue:
    """A number or a list of numbers that is computed in Python, not as a tensor.

    Attributes:
        slot: Slot that holds it.
        shape: ``()`` or ``(n,)``; ``n`` is ``None`` if it depends on the data.
        dtype: ``INT64`` or ``BOOL``.
        tensor_slot: Slot that holds it as a tensor, once a node has needed that.
    """

    slot: int
    shape: tuple[int | None, ...]
    dtype: ir.DataType
    tensor_slot: int | None = None


Found = int | Constant | HostValue
"""What a value is: the slot of a tensor, a constant, or a value that is computed in Python."""


@dataclass(frozen=True)
class PendingStep:
    """A step before it is known which slots it may free; see :class:`Step`."""

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    host: tuple[int, ...]
    outputs: tuple[int, ...]
    label: str


class Frame:
    """The slots and steps of a graph, with those of the functions that it calls."""

    def __init__(self, outer: Frame | None = None) -> None:
        self.outer = outer
        self.place: Place = Place() if outer is None else outer.place
        self.template: list[Any] = [None]
        self.captured: dict[int, int] = {}
        self.constants: dict[Constant, int] = {}
        self._lists: dict[Constant, int] = {}
        self._steps: list[PendingStep] = []

    def new_slot(self, content: Any = None) -> int:
        """Adds a slot.

        Args:
            content: What the slot holds before the first step.
        """
        self.template.append(content)
        return len(self.template) - 1

    def capture(self, outer_slot: int) -> int:
        """The slot here of a value that the graph around this one has in ``outer_slot``."""
        if outer_slot not in self.captured:
            self.captured[outer_slot] = self.new_slot()
        return self.captured[outer_slot]

    def constant(self, constant: Constant) -> int:
        """The slot of a constant; the module holds each constant once for all graphs."""
        if constant not in self.constants:
            self.constants[constant] = (
                self.new_slot()
                if self.outer is None
                else self.capture(self.outer.constant(constant))
            )
        return self.constants[constant]

    def as_list(self, constant: Constant) -> int:
        """The slot that holds a constant as Python numbers."""
        if constant not in self._lists:
            self._lists[constant] = self.new_slot(constant.tensor.numpy().tolist())
        return self._lists[constant]

    def add(
        self,
        call: Callable[..., Any],
        inputs: Iterable[int],
        outputs: Iterable[int],
        label: str,
        host: tuple[int, ...] = (),
    ) -> None:
        """Appends a step."""
        self._steps.append(PendingStep(call, tuple(inputs), host, tuple(outputs), label))

    def steps(self, kept: Collection[int]) -> tuple[Step, ...]:
        """The steps, each of which frees the slots that no later step reads.

        Args:
            kept: Slots that are never freed.
        """
        seen = {NONE_SLOT, *kept, *self.captured.values(), *self.constants.values()}
        seen.update(self._lists.values())
        steps: list[Step] = []
        for step in reversed(self._steps):
            slots = (*step.inputs, *step.outputs)
            free = tuple(dict.fromkeys(slot for slot in slots if slot not in seen))
            seen.update(free)
            steps.append(Step(step.call, step.inputs, step.host, step.outputs, free, step.label))
        return tuple(reversed(steps))


@dataclass
class Scope:
    """The values that are visible in a graph or in the body of a function.

    Attributes:
        frame: Frame in which the nodes run.
        constants: The constants of the model.
        opsets: Versions of the domains that the graph or function imports.
        path: Beginning of the names of its nodes in messages.
        attributes: Attributes of the call, if this is the body of a function.
        outer: The scope around a subgraph, else ``None``.
        values: Values that this scope has defined or found.
        types: Types of values that the caller of a function knows.
        calls: The functions that this scope is in, outermost first.
    """

    frame: Frame
    constants: Mapping[ir.Value, Constant]
    opsets: Mapping[str, int]
    path: str = ""
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    outer: Scope | None = None
    values: dict[ir.Value, Found] = field(default_factory=dict)
    types: dict[ir.Value, ir.DataType | None] = field(default_factory=dict)
    calls: tuple[object, ...] = ()

    def subgraph(self, path: str) -> Scope:
        """Makes the scope of a subgraph, with a frame of its own."""
        return Scope(
            Frame(self.frame),
            self.constants,
            self.opsets,
            path,
            self.attributes,
            self,
            calls=self.calls,
        )

    def find(self, value: ir.Value) -> Found:
        """Finds a value in this scope or in one around it.

        Raises:
            ModelError: If nothing defines it.
        """
        found = self.values.get(value, self.constants.get(value))
        if found is None:
            if self.outer is None:
                raise ModelError(
                    f"value '{value.name}' is read before it is computed; sort the nodes of the "
                    "graph, or export it again"
                )
            found = self.outer.find(value)
            if isinstance(found, int):
                found = self.frame.capture(found) if found != NONE_SLOT else NONE_SLOT
            elif isinstance(found, HostValue):
                slot = self.frame.capture(found.slot)
                found = HostValue(slot, found.shape, found.dtype)
            self.values[value] = found
        return found

    def slot(self, value: ir.Value | None) -> int:
        """The slot that holds a value as a tensor."""
        if is_omitted(value):
            return NONE_SLOT
        assert value is not None
        found = self.find(value)
        if isinstance(found, int):
            return found
        if isinstance(found, Constant):
            return self.frame.constant(found)
        if found.tensor_slot is None:
            found.tensor_slot = self.define_slot()
            dtype, place = TORCH_DTYPES[found.dtype], self.frame.place
            self.frame.add(
                lambda numbers: torch.tensor(numbers, dtype=dtype, device=place.device),
                [found.slot],
                [found.tensor_slot],
                f"conversion of '{value.name}' to a tensor",
            )
        return found.tensor_slot

    def host_slot(self, value: ir.Value | None) -> tuple[int, bool]:
        """The slot of a value that a step wants as Python numbers.

        Returns:
            The slot, and whether it holds a tensor that the step must convert.
        """
        if is_omitted(value):
            return NONE_SLOT, False
        assert value is not None
        found = self.find(value)
        if isinstance(found, Constant):
            return self.frame.as_list(found), False
        if isinstance(found, HostValue):
            return found.slot, False
        return found, found != NONE_SLOT

    def is_known(self, value: ir.Value | None) -> bool:
        """Whether a value is a constant, or computed in Python."""
        if value is None or is_omitted(value):
            return False
        return isinstance(self.find(value), Constant | HostValue)

    def define_slot(self) -> int:
        """Adds a slot to the frame."""
        return self.frame.new_slot()

    def define(self, value: ir.Value) -> int:
        """Adds a slot for a value that this scope computes."""
        slot = self.define_slot()
        self.values[value] = slot
        return slot

    def type_of(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type of a value, or ``None`` if it is not known."""
        if value is None:
            return None
        if value in self.types:
            return self.types[value]
        if value in self.constants:
            return self.constants[value].tensor.dtype
        return value.const_value.dtype if value.const_value is not None else value.dtype


def is_omitted(value: ir.Value | None) -> bool:
    """Whether an input of a node is omitted."""
    return value is None or (value.name == "" and value.producer() is None)
