"""Models that are nothing but inputs, for tests of data."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

FLOAT, INT64, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UINT8

Dims = Sequence[int | str]


def input_model(classes: int | str = 3, **inputs: Dims | tuple[int, Dims]) -> ir.Model:
    """A model with inputs ``name=dims`` of floats, or ``name=(type, dims)``, and class scores."""
    values = []
    for name, given in inputs.items():
        typed = len(given) == 2 and not isinstance(given[1], (int, str))
        dtype, dims = given if typed else (FLOAT, given)
        values.append(onnx.helper.make_tensor_value_info(name, dtype, list(dims)))
    output = onnx.helper.make_tensor_value_info("scores", FLOAT, ["n", classes])
    node = onnx.helper.make_node("Identity", [values[0].name], ["scores"])
    graph = onnx.helper.make_graph([node], "g", values, [output])
    return ir.from_proto(onnx.helper.make_model(graph))
