"""What a product of a node is, and what all builders of products share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.cost.geometry import Axis, Side

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
"""Shapes of the inputs of a node, ``None`` where one is left out."""


@dataclass(frozen=True, eq=False)
class Product:
    """One product of a node; most operators have one.

    Attributes:
        a: Index of the input that is its first operand; ``None``: a value inside of the operator,
            such as a recurrent state, which is float.
        b: The same of its second operand.
        sides: How both map onto taps.
        label: Tells the products of one node apart; empty where there is one.
    """

    a: int | None
    b: int | None
    sides: tuple[Side, Side]
    label: str = ""


Build = Callable[[ir.Node, Shapes], tuple[Product, ...]]
"""Finds the products of a node from the shapes of its inputs."""


def shape_of(shapes: Shapes, index: int) -> Shape:
    """Shape of an input that must be there."""
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise ValueError(f"input {index} is missing")
    return shape


def attribute_ints(node: ir.Node, name: str, default: Shape) -> Shape:
    """Value of an attribute that lists integers."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def axes_of(labels: Sequence[str], sizes: Sequence[int]) -> list[Axis]:
    """One label for every axis."""
    return [((label, size),) for label, size in zip(labels, sizes, strict=True)]


def optional_shape(shapes: Shapes, index: int) -> Shape | None:
    """Shape of an input that may be left out."""
    return shapes[index] if index < len(shapes) else None
