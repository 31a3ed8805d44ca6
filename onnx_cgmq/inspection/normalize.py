"""Brings the model of any tool into the one shape that the readers expect; its meaning stays."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.ort.shapes import set_types_of_onnxruntime


def normalize(model: ir.Model) -> None:
    """Makes all constants initializers, inlines functions, infers types and shapes, in place."""
    common.RemoveInitializersFromInputsPass()(model)
    if model.functions:
        common.InlinePass(lambda function: function.domain not in QUANT_DOMAINS)(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _infer_missing_types(model)


def _infer_missing_types(model: ir.Model) -> None:
    """Infers types and shapes that operands lack, as files of other tools may not have them."""
    if _untyped(model):
        infer_shapes(model)
    if values := _untyped(model):
        set_types_of_onnxruntime(model, values)


def _untyped(model: ir.Model) -> list[ir.Value]:
    """Lists operands without type or shape, and codes without type."""
    found: dict[ir.Value, None] = {}
    for node in model.graph:
        spec = mac_spec(node)
        for _, value in spec.operand_values(node) if spec is not None else ():
            if value.shape is None or value.dtype is None:
                found[value] = None
        codes = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if codes is not None and codes.dtype is None:
            found[codes] = None
    return [value for value in found if value.producer() is not None]
