"""Asks onnxruntime for types and shapes after operators that only it knows, such as QLinearAdd."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from onnx_cgmq.graph.infer import skeleton
from onnx_cgmq.ort.session import LogLevel, new_session


def set_types_of_onnxruntime(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """Gives values the types and shapes that onnxruntime infers when it loads a model, in place.

    Nothing changes if onnxruntime can't load the model.

    Args:
        model: The model.
        values: Outputs of nodes of the main graph.
    """
    by_name = {str(value.name): value for value in values}
    try:
        proto = skeleton(model)
        known = {output.name for output in proto.graph.output}
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in by_name if name not in known
        )
        session = new_session(proto.SerializeToString(), optimize=False, log_level=LogLevel.SILENT)
    except Exception:  # onnxruntime's errors have no common base
        return
    for output in session.get_outputs():
        value = by_name.get(output.name)
        kind, _, element = output.type.rstrip(")").partition("(")
        if value is not None and kind == "tensor":
            value.type = ir.TensorType(ir.DataType[element.upper()])
            if output.shape:  # it is empty for a scalar, but also if the rank is unknown
                value.shape = ir.Shape(output.shape)
