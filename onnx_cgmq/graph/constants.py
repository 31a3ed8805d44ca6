"""Values that are constant in a file: initializers, and what follows from them alone."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.nodes import int_attribute, standard_op


def constant_value(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Returns the array of a constant value, or ``None`` if the value is not constant.

    Constant are initializers, and ``Cast``, ``Clip``, ``Gather`` and ``Identity`` of constants:
    the operators that stand between stored codes and the node that reads them.
    """
    return _value(value, {})


_Known = dict[ir.Value, npt.NDArray[Any] | None]
_MOST_TIMES: Final = 16
_MOST_ELEMENTS: Final = 1 << 24
"""Elements that rows of a table may have; above, no more than a few times those that are read."""


def _value(value: ir.Value | None, known: _Known) -> npt.NDArray[Any] | None:
    if value is None:
        return None
    if value not in known:
        known[value] = _computed(value, known)
    return known[value]


def _computed(value: ir.Value, known: _Known) -> npt.NDArray[Any] | None:
    if value.const_value is not None and not value.is_graph_input():
        return np.asarray(value.const_value.numpy())
    node = value.producer()
    operator = standard_op(node) if node is not None else None
    if node is None or operator not in ("Cast", "Clip", "Gather", "Identity"):
        return None
    inputs = [_value(read, known) for read in node.inputs]
    data = inputs[0] if inputs else None
    if data is None:
        return None
    if operator == "Identity":
        return data
    if operator == "Cast":
        to = int_attribute(node, "to", 0)
        known_type = to in {dtype.value for dtype in ir.DataType if dtype is not dtype.UNDEFINED}
        return np.asarray(data.astype(ir.DataType(to).numpy())) if known_type else None
    if operator == "Clip":
        return _clip(node, data, inputs[1:])
    if len(inputs) < 2 or inputs[1] is None or "axis" in node.attributes:
        return None
    return _rows(data, inputs[1])


def _rows(data: npt.NDArray[Any], indices: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Rows of a table; ``None`` if there are no such rows, or so many as to take gigabytes."""
    elements = indices.size * math.prod(data.shape[1:])
    if elements > _MOST_ELEMENTS + _MOST_TIMES * (data.size + indices.size):
        return None
    try:
        return np.asarray(data[indices])
    except IndexError:
        return None


def _clip(
    node: ir.Node, data: npt.NDArray[Any], ends: list[npt.NDArray[Any] | None]
) -> npt.NDArray[Any] | None:
    for index, end in enumerate(ends):
        if end is None:
            if node.inputs[1 + index] is not None:
                return None
            continue
        # numpy has no comparisons of types below 8 bits.
        wide = np.int64 if data.dtype.kind not in "f" else data.dtype
        limit = (np.maximum, np.minimum)[index]
        data = limit(data.astype(wide), end.astype(wide)).astype(data.dtype)
    return data
