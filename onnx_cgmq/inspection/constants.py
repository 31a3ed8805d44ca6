"""Values that a file fixes: initializers, and what onnxruntime folds of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.opspec import standard_op


def constant_value(value: ir.Value) -> npt.NDArray[Any] | None:
    """Value of an initializer, or of ``Cast`` and ``Gather`` of initializers; else ``None``."""
    if value.const_value is not None and not value.is_graph_input():
        return np.asarray(value.const_value.numpy())
    node = value.producer()
    operator = standard_op(node) if node is not None else None
    if node is None or operator not in ("Cast", "Gather"):
        return None
    inputs = [None if read is None else constant_value(read) for read in node.inputs]
    if inputs[0] is None:
        return None
    if operator == "Cast":
        to = ir.DataType(node.attributes["to"].as_int())
        return np.asarray(inputs[0].astype(to.numpy()))
    if inputs[1] is None or "axis" in node.attributes:
        return None
    return np.asarray(inputs[0][inputs[1]])
