"""Describes nodes that are computed with Python numbers instead of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

Shape = tuple[int | None, ...]
"""``()`` for a number, ``(n,)`` for a list; ``n`` is ``None`` if it depends on the data."""


@dataclass(frozen=True)
class Operand:
    """What is known about an input of a node before anything runs.

    Attributes:
        shape: Its shape.
        dtype: ``INT64`` or ``BOOL``.
        value: Its value if it is constant, else ``None``.
    """

    shape: Shape
    dtype: ir.DataType
    value: Any = None


@dataclass(frozen=True)
class HostPlan:
    """How a node is computed in Python.

    Attributes:
        shape: Shape of the result.
        dtype: Type of the result.
        run: Function that computes the result from the node's inputs.
    """

    shape: Shape
    dtype: ir.DataType
    run: Callable[..., Any]
