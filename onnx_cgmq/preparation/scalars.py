"""Makes scalars of what exporters give as one element of shape [1], where onnxruntime refuses it.

Paddle2ONNX has no scalars, for example. Where onnxruntime takes one element for a scalar (limits of
Clip, the axis of CumSum), nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.emitter import Emitter, optional
from onnx_cgmq.graph.nodes import standard_op

_SCALARS: Final[Mapping[str, tuple[int, ...]]] = {
    "BlackmanWindow": (0,),
    "DFT": (1, 2),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (1,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "Range": (0, 1, 2),
    "STFT": (1, 3),
}
"""Inputs that must be scalars, by operator."""


def make_scalars(model: ir.Model) -> None:
    """Reshapes inputs of one element that must be scalars, in place; shapes must be inferred."""
    for graph in model.graphs():
        for node in list(graph):
            emit = Emitter(node, model.opset_imports[""])
            for index in _SCALARS.get(standard_op(node) or "", ()):
                value = optional(node, index)
                if value is not None and value.shape is not None and list(value.shape) == [1]:
                    scalar = emit("Squeeze", value, rank=0)
                    scalar.type = value.type
                    node.replace_input_with(index, scalar)
