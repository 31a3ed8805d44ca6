"""The registry of the operators that the mirror can run, by domain, operator and opset."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx_ir as ir
import torch

from onnx_cgmq.mirror.core.place import Place

Handler = Callable[..., Any]
"""``handler(context, *bodies, *inputs) -> Tensor | tuple``; an omitted input is ``None``."""

Check = Callable[["Context"], "str | None"]
"""``check(context) -> reason``: why the handler can't run a node exactly; ``None`` if it can."""

HandlerT = TypeVar("HandlerT", bound=Handler)

OLDEST_OPSET = 6
"""The oldest opset whose operators are registered.

Operators of older opsets run if their meaning has not changed since.
"""


@dataclass(frozen=True)
class Context:
    """What a handler knows about its node besides the inputs.

    Attributes:
        node: Name of the node.
        op_type: Operator of the node.
        opset: The version of the node's domain that the model imports.
        attributes: Attributes as Python values, tensors as torch tensors.
        input_types: ONNX element type of each input, ``None`` where the graph does not give it.
        output_count: Number of outputs up to the last one that has a name.
        wanted_outputs: Indices of the outputs that have a name and are read.
        place: Where the mirror computes.
    """

    node: str
    op_type: str
    opset: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    input_types: tuple[ir.DataType | None, ...] = ()
    output_count: int = 1
    wanted_outputs: frozenset[int] = frozenset({0})
    place: Place = field(default_factory=Place)

    @property
    def label(self) -> str:
        """Operator, node and opset, for messages."""
        return f"{self.op_type} node '{self.node}' (opset {self.opset})"

    @property
    def device(self) -> torch.device:
        """Where a tensor is made that follows from no input; others follow their inputs."""
        return self.place.device

    def has(self, name: str) -> bool:
        """Whether the node sets an attribute."""
        return name in self.attributes

    def integer(self, name: str, default: int = 0) -> int:
        """The value of an integer attribute."""
        return int(self.attributes.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """The value of an integer attribute that stands for true or false.

        Raises:
            ValueError: If it is neither 0 nor 1; implementations differ on other values.
        """
        value = self.attributes.get(name, default)
        if value not in (0, 1):
            raise ValueError(f"its attribute {name} = {value} is neither 0 nor 1")
        return bool(value)

    def real(self, name: str, default: float = 0.0) -> float:
        """The value of a float attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """The value of a string attribute."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The value of an attribute with a list of integers, or ``None`` if the node has none."""
        value: Sequence[int] | None = self.attributes.get(name)
        return None if value is None else tuple(value)

    def input_type(self, index: int) -> ir.DataType | None:
        """ONNX element type of an input, ``None`` if it is unknown or the input is omitted."""
        return self.input_types[index] if index < len(self.input_types) else None

    def wants(self, output: int) -> bool:
        """Whether something reads an optional output."""
        return output in self.wanted_outputs


@dataclass(frozen=True)
class Operator:
    """One registered version of an operator.

    Attributes:
        domain: Domain of the operator, ``""`` for the standard one.
        op_type: Operator.
        since: First opset for which the handler is right.
        handler: Function that runs the operator.
        host: Indices of inputs that the handler takes as Python numbers or lists (shapes, axes,
            pads). Constants are converted once, when the mirror is built.
        host_if_known: Indices of inputs that the handler takes as Python values if they are
            constants or come from shapes, else as tensors, which may have a gradient.
        check: Function that refuses nodes which the handler can't run exactly.
        bodies: Names of attributes that hold subgraphs. The handler takes them after the context,
            as functions (:class:`~onnx_cgmq.mirror.core.program.BoundBody`) or ``None`` if omitted.
    """

    domain: str
    op_type: str
    since: int
    handler: Handler
    host: tuple[int, ...] = ()
    host_if_known: tuple[int, ...] = ()
    check: Check | None = None
    bodies: tuple[str, ...] = ()


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}


def onnx_op(
    *op_types: str,
    since: int = 1,
    domain: str = "",
    host: tuple[int, ...] = (),
    host_if_known: tuple[int, ...] = (),
    check: Check | None = None,
    bodies: tuple[str, ...] = (),
) -> Callable[[HandlerT], HandlerT]:
    """Registers a handler for operators.

    Args:
        *op_types: Operators that the handler runs.
        since: First opset for which the handler is right. It serves all newer opsets, up to the
            ``since`` of the next registration.
        domain: Domain of the operators.
        host: Inputs that the handler takes as Python values, see :class:`Operator`.
        host_if_known: Inputs that it takes as Python values if these are known, see
            :class:`Operator`.
        check: Function that refuses nodes, see :class:`Operator`.
        bodies: Attributes that hold subgraphs, see :class:`Operator`.

    Raises:
        ValueError: If an operator already has a handler with the same ``since``.
    """

    def register(handler: HandlerT) -> HandlerT:
        for op_type in op_types:
            versions = _OPERATORS.setdefault((domain, op_type), [])
            if any(version.since == since for version in versions):
                raise ValueError(f"operator {op_type} since {since} is already registered")
            operator = Operator(domain, op_type, since, handler, host, host_if_known, check, bodies)
            bisect.insort(versions, operator, key=lambda version: version.since)
        return handler

    return register


def find_operator(domain: str, op_type: str, opset: int) -> Operator | None:
    """Finds the registered version with the newest ``since`` that is not above ``opset``."""
    versions = _OPERATORS.get((domain, op_type), [])
    return next((v for v in reversed(versions) if v.since <= opset), None)


def registered_operators() -> tuple[Operator, ...]:
    """All registered versions, sorted by domain, operator and ``since``."""
    return tuple(operator for key in sorted(_OPERATORS) for operator in _OPERATORS[key])
