"""Values that are constant in a file: initializers, and what follows from them alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op


def constant_value(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Returns the array of a constant value, or ``None`` if the value is not constant.

    Constant are initializers, and ``Cast``, ``Clip``, ``Gather`` and ``Identity`` of constants:
    the operators that stand between stored codes and the node that reads them.
    """
    if value is None:
        return None
    if value.const_value is not None and not value.is_graph_input():
        return np.asarray(value.const_value.numpy())
    node = value.producer()
    operator = standard_op(node) if node is not None else None
    if node is None or operator not in ("Cast", "Clip", "Gather", "Identity"):
        return None
    inputs = [constant_value(read) for read in node.inputs]
    data = inputs[0]
    if data is None:
        return None
    if operator == "Identity":
        return data
    if operator == "Cast":
        to = ir.DataType(node.attributes["to"].as_int())
        return np.asarray(data.astype(to.numpy()))
    if operator == "Clip":
        return _clip(node, data, inputs[1:])
    if len(inputs) < 2 or inputs[1] is None or "axis" in node.attributes:
        return None
    return np.asarray(data[inputs[1]])


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
