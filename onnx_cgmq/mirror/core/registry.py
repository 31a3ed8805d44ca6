"""The operators that the mirror can run, by (domain, operator, since-version)."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx_ir as ir

Handler = Callable[..., Any]
"""``handler(context, *bodies, *inputs) -> Tensor | tuple``; an omitted input is ``None``."""

Check = Callable[["Context"], "str | None"]
"""``check(context) -> reason``: why this node can't be run exactly, or ``None``."""

HandlerT = TypeVar("HandlerT", bound=Handler)

OLDEST_OPSET = 6
"""The oldest opset whose operators are registered; others run if they meant the same before."""


@dataclass(frozen=True)
class Context:
    """What a handler knows of its node besides the inputs.

    Attributes:
        node: Name of the node.
        op_type: Operator.
        opset: Version of the operator set of the node's domain that the model imports.
        attributes: Attributes as Python values, tensors as torch has them.
        input_types: ONNX element types of the inputs where the graph tells them, else ``None``.
        output_count: Number of outputs up to the last one that the node names.
        wanted_outputs: Indices of the outputs that the node names and something reads.
    """

    node: str
    op_type: str
    opset: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    input_types: tuple[ir.DataType | None, ...] = ()
    output_count: int = 1
    wanted_outputs: frozenset[int] = frozenset({0})

    @property
    def label(self) -> str:
        """Operator, node and opset, for messages."""
        return f"{self.op_type} node '{self.node}' (opset {self.opset})"

    def has(self, name: str) -> bool:
        """Whether the node sets an attribute."""
        return name in self.attributes

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that is a truth value.

        Raises:
            ValueError: If it is neither 0 nor 1, of which implementations make different things.
        """
        value = self.attributes.get(name, default)
        if value not in (0, 1):
            raise ValueError(f"its attribute {name} = {value} is neither 0 nor 1")
        return bool(value)

    def real(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers, or ``None`` when the node doesn't set it."""
        value: Sequence[int] | None = self.attributes.get(name)
        return None if value is None else tuple(value)

    def input_type(self, index: int) -> ir.DataType | None:
        """ONNX element type of an input, ``None`` when unknown or omitted."""
        return self.input_types[index] if index < len(self.input_types) else None

    def wants(self, output: int) -> bool:
        """Whether something reads an optional output."""
        return output in self.wanted_outputs


@dataclass(frozen=True)
class Operator:
    """One registered version of an operator.

    Attributes:
        domain: Operator domain, ``""`` for the standard one.
        op_type: Operator.
        since: First opset in which the handler is right.
        handler: Runs it.
        host: Indices of inputs that the handler takes as Python numbers or lists (shapes, axes,
            pads): converted once when the graph is built if they are constants.
        host_if_known: Indices of inputs that the handler takes as Python values if they are
            constants or come from shapes, else as tensors, which may have a gradient.
        check: Refuses nodes that the handler can't run exactly.
        bodies: Attributes that hold subgraphs: the handler takes them after the context as
            functions (:class:`~onnx_cgmq.mirror.core.program.BoundBody`), ``None`` if omitted.
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
        *op_types: Operators that it runs.
        since: First opset in which it is right; a later registration takes over from its ``since``.
        domain: Operator domain.
        host: Inputs wanted as Python values, see :class:`Operator`.
        host_if_known: The same where their values are known, see :class:`Operator`.
        check: Refuses nodes, see :class:`Operator`.
        bodies: Attributes that hold subgraphs, see :class:`Operator`.

    Raises:
        ValueError: If an operator has a handler of the same ``since`` already.
    """

    def register(handler: HandlerT) -> HandlerT:
        for op_type in op_types:
            versions = _OPERATORS.setdefault((domain, op_type), [])
            if any(version.since == since for version in versions):
                raise ValueError(f"operator {op_type} since {since} is registered already")
            operator = Operator(domain, op_type, since, handler, host, host_if_known, check, bodies)
            bisect.insort(versions, operator, key=lambda version: version.since)
        return handler

    return register


def find_operator(domain: str, op_type: str, opset: int) -> Operator | None:
    """The registered version with the newest ``since`` that is not above ``opset``."""
    versions = _OPERATORS.get((domain, op_type), [])
    return next((v for v in reversed(versions) if v.since <= opset), None)


def registered_operators() -> tuple[Operator, ...]:
    """All registered versions, by domain, operator and since-version."""
    return tuple(operator for key in sorted(_OPERATORS) for operator in _OPERATORS[key])
