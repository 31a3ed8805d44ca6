"""Tiny graphs in the forms that other tools write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
MICROSOFT = "com.microsoft"


def foreign_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    shape: Sequence[int | str] = ("n", 4),
    opset: int = 21,
    x_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model from ``x`` to ``y`` that says nothing of what is between.

    Constants are arrays, or tensors where numpy has no such type.
    """
    tensors = [
        value
        if isinstance(value, onnx.TensorProto)
        else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", x_type, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=13 if opset > 23 else 10)


def quant(x: str, y: str, bits: str, domain: str = QONNX, **attributes: Any) -> onnx.NodeProto:
    """``Quant`` with the constants ``s`` and ``z``, and a width that is a constant ``bits``."""
    settings = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    return helper.make_node("Quant", [x, "s", "z", bits], [y], name=y, domain=domain, **settings)
