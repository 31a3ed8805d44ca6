"""Inputs that handlers take as Python values."""

from __future__ import annotations

from collections.abc import Sequence

Number = float | Sequence[float]
"""A scalar, or a tensor of one element, which ONNX often takes for one."""


def number(value: Number) -> float:
    """The one element of a host input (an ``int`` if the tensor holds integers)."""
    while isinstance(value, Sequence):
        (value,) = value
    return value
