"""What is computed with Python numbers instead of tensors: shapes of inputs, plans of nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

Shape = tuple[int | None, ...]
"""``()`` of a number, ``(n,)`` of a list; the length is ``None`` if it depends on the data."""


@dataclass(frozen=True)
class Operand:
    """What is known of an input before anything runs.

    Attributes:
        shape: Its shape.
        dtype: ``INT64`` or ``BOOL``.
        value: Its value if it is constant.
    """

    shape: Shape
    dtype: ir.DataType
    value: Any = None


@dataclass(frozen=True)
class HostPlan:
    """How a node is computed in Python.

    Attributes:
        shape: Shape of its result.
        dtype: Type of its result.
        run: Computes it from the node's inputs.
    """

    shape: Shape
    dtype: ir.DataType
    run: Callable[..., Any]
