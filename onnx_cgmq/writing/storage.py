"""Decides in which integer types weights are stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_cgmq.graph.integer_types import quantizer_opset
from onnx_cgmq.ort.capabilities import NEWEST_OPSET, folds_cast_of
from onnx_cgmq.ort.versions import Runtime


@dataclass(frozen=True)
class WeightTypes:
    """The integer types in which weights may be stored.

    Attributes:
        opset: Opset of the standard operators in the model.
        runtime: The oldest onnxruntime that is to load the model. The installed one must load a
            type as well.
    """

    opset: int = NEWEST_OPSET
    runtime: Runtime = field(default_factory=Runtime.installed)

    @classmethod
    def of(cls, model: ir.Model) -> WeightTypes:
        """Finds the types for a prepared or gated model."""
        return cls(model.opset_imports.get("", 1), Runtime.of(model))

    def narrowest(self, width: int) -> ir.DataType:
        """Returns the smallest type that holds a symmetric grid of 2, 4, 8 or 16 bits."""
        for data_type in (ir.DataType.INT2, ir.DataType.INT4):
            fits = width <= data_type.bitwidth and self.opset >= quantizer_opset(data_type)
            if fits and self.runtime.takes(data_type) and folds_cast_of(data_type):
                return data_type
        return ir.DataType.INT8 if width <= 8 else ir.DataType.INT16
