"""Product: what a MAC node multiplies; and helpers for the functions that find products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.cost.geometry import Axis, Side

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
"""Shapes of the inputs of a node; ``None`` for an input that is left out."""


@dataclass(frozen=True, eq=False)
class Product:
    """One product of a MAC node. Most operators have one; attention, for example, has several.

    Attributes:
        a: Index of the input that is the first operand; ``None`` for a value inside the operator,
            such as a recurrent state, which is float.
        b: Index of the input that is the second operand, likewise.
        sides: How both operands map onto taps.
        label: Name of the product among those of its node; empty if the node has only one.
    """

    a: int | None
    b: int | None
    sides: tuple[Side, Side]
    label: str = ""


Build = Callable[[ir.Node, Shapes], tuple[Product, ...]]
"""Finds the products of a node from the shapes of its inputs."""


def shape_of(shapes: Shapes, index: int) -> Shape:
    """Returns the shape of an input that must be there.

    Raises:
        ValueError: The input is left out.
    """
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise ValueError(f"input {index} is missing")
    return shape


def attribute_ints(node: ir.Node, name: str, default: Shape) -> Shape:
    """Returns the value of an attribute that lists integers.

    Args:
        node: The node.
        name: Name of the attribute.
        default: The value if the node does not have the attribute.
    """
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def axes_of(labels: Sequence[str], sizes: Sequence[int]) -> list[Axis]:
    """Makes axes of which each has one label and one size."""
    return [((label, size),) for label, size in zip(labels, sizes, strict=True)]


def optional_shape(shapes: Shapes, index: int) -> Shape | None:
    """Returns the shape of an input, or ``None`` if it is left out."""
    return shapes[index] if index < len(shapes) else None
