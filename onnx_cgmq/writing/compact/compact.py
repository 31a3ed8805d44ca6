"""Makes a written model as small as its codes and scales allow, without changing what it means."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.contract.form import Form
from onnx_cgmq.graph.files.load import tensors_of
from onnx_cgmq.writing.compact.attributes import drop_default_attributes
from onnx_cgmq.writing.compact.names import shorten_names
from onnx_cgmq.writing.compact.scales import (
    compute_bias_scales,
    drop_zero_points_of_int32,
    narrow_scales,
)
from onnx_cgmq.writing.compact.types import drop_inferable_types

_SHARED_UP_TO: Final = 1 << 13  # elements; scales and zero points of channels have fewer


_ROOM: Final = 5_000
_SHARE: Final = 0.03
"""Names may take so many bytes, or this share of the constants if that is more. Our choices."""


def compact_model(
    model: ir.Model, form: Form, float_names: Collection[str], *, short_names: bool
) -> dict[str, str]:
    """Removes from a written model what a reader can do without, in place.

    * Equal constants are stored once.
    * Attributes with default values, and types and shapes that follow from others, are left out.
    * Names are short where they would take too much of the file, or everywhere if that is wanted.
    * In the form ``ort``, scales are computed from others or stored in narrow types where that
      takes fewer bytes. onnxruntime computes them once, when it loads the file.

    Outputs stay the same to the last bit, and onnxruntime fuses the same kernels. A model in the
    form ``qonnx`` stays as it is, because tools for QONNX rely on names, on attributes, and on
    constants that belong to one node.

    Args:
        model: The written model.
        form: The form in which it is written.
        float_names: The names of values and nodes in the float model, which stay first.
        short_names: Whether names get no room at all.

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
    constants = sum(tensor.nbytes for _, tensor in tensors_of(model))
    room = 0 if short_names else max(_ROOM, int(_SHARE * constants))
    return shorten_names(model, float_names, room)
