"""Makes a written model as small as its codes and scales allow, with the same meaning."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.contract.form import Form
from onnx_cgmq.writing.compact.attributes import drop_default_attributes
from onnx_cgmq.writing.compact.names import shorten_names
from onnx_cgmq.writing.compact.scales import (
    compute_bias_scales,
    drop_zero_points_of_int32,
    narrow_scales,
)
from onnx_cgmq.writing.compact.types import drop_inferable_types

_SHARED_UP_TO: Final = 1 << 13  # elements: scales and zero points of channels


def compact_model(model: ir.Model, form: Form) -> dict[str, str]:
    """Takes out of a written model what a reader can do without, in place.

    Equal constants are stored once, attributes with default values and types that follow from
    others go, and names are short. In the form ``ort``, scales are computed where that is smaller,
    which onnxruntime does once, at load. Outputs stay the same to the last bit, and onnxruntime
    fuses the same kernels. The form ``qonnx`` is for tools that rely on names, attributes and
    constants of their own for every node; it stays as it is.

    Returns:
        Former names of operands by the new ones, for :mod:`~onnx_cgmq.writing.embedded_plan`.
    """
    if form is Form.QONNX:
        return {}
    if form is Form.ORT:
        compute_bias_scales(model.graph)
        drop_zero_points_of_int32(model.graph)
        narrow_scales(model.graph, model.graph.opset_imports.get("", 1))
    passes.DeduplicateInitializersPass(_SHARED_UP_TO)(model)
    passes.RemoveUnusedNodesPass()(model)
    drop_default_attributes(model)
    drop_inferable_types(model)
    return shorten_names(model)
