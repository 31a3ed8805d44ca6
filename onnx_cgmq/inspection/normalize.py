"""Brings the model of any tool into the one shape that the readers expect; its meaning stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.input_shapes import dimension_name
from onnx_cgmq.graph.layouts import permutation, transposes_above
from onnx_cgmq.graph.nodes import int_attribute, standard_op
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.inspection.zero_channels import remove_zero_channels
from onnx_cgmq.ort.shapes import set_types_of_onnxruntime
from onnx_cgmq.ort.sizes import Sizes

_CONSTANTS_ARE_INPUTS_BELOW: Final = 4
"""IR version below which all initializers are inputs, and yet constants."""


def normalize(model: ir.Model) -> dict[ir.Value, ir.Shape]:
    """Makes constants initializers, inlines functions, infers types and shapes anew, in place.

    Initializers that a caller may override stay inputs.

    Returns:
        The shapes that the file declares for results of nodes, which nothing proves.
    """
    if model.ir_version < _CONSTANTS_ARE_INPUTS_BELOW:
        common.RemoveInitializersFromInputsPass()(model)
    if model.functions:
        common.InlinePass(lambda function: function.domain not in QUANT_DOMAINS)(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    remove_zero_channels(model)
    for node in list(model.graph.all_nodes()):
        if standard_op(node) == "DequantizeLinear":
            _transpose_floats(node)
    return _infer_anew(model)


def _transpose_floats(dequantize: ir.Node) -> None:
    """Makes ``Transpose -> DequantizeLinear`` of stored codes transpose the floats, in place.

    So a weight is read in the layout in which it is stored, as where its floats are transposed.
    """
    codes, scale = dequantize.inputs[:2]
    path = transposes_above(codes) if codes is not None else ()
    stored = path[-1].inputs[0] if path else None
    rank = _rank_of_codes(stored) if stored is not None else None
    output = dequantize.outputs[0]
    if rank is None or scale is None or scale.const_value is None or output.is_graph_output():
        return
    axes = permutation(path, rank)
    axis = int_attribute(dequantize, "axis", 1)
    if len(scale.const_value.shape) > 1 or not -rank <= axis < rank:
        return  # blocks of codes
    transpose = ir.node("Transpose", [output], {"perm": axes})
    value = transpose.outputs[0]
    value.name = f"{output.name}.transposed"
    output.replace_all_uses_with(value)
    transpose.replace_input_with(0, output)
    dequantize.replace_input_with(0, stored)
    dequantize.attributes["axis"] = ir.AttrInt64("axis", axes[axis])
    assert dequantize.graph is not None
    dequantize.graph.insert_after(dequantize, transpose)


def _rank_of_codes(value: ir.Value) -> int | None:
    """The rank of an initializer, perhaps behind a Cast; ``None`` of any other value."""
    node = value.producer()
    if node is not None and standard_op(node) == "Cast" and node.inputs[0] is not None:
        value = node.inputs[0]
    return None if value.const_value is None else len(value.const_value.shape)


def _infer_anew(model: ir.Model) -> dict[ir.Value, ir.Shape]:
    """Infers types and shapes from inputs and constants; types that can't be are as declared."""
    values = [output for node in model.graph.all_nodes() for output in node.outputs]
    shapes = {value: value.shape for value in values if value.shape is not None}
    types = {value: value.type for value in values if value.type is not None}
    for value in values:
        value.shape = value.type = None
    infer_shapes(model)
    if unknown := _untyped(model):
        set_types_of_onnxruntime(model, unknown)
    for value, declared in types.items():
        if value.type is None:
            value.type = declared
    return shapes


def take_declared_sizes(model: ir.Model, declared: Mapping[ir.Value, ir.Shape]) -> set[ir.Value]:
    """Gives values the sizes that the file declares, where no others are known, in place.

    Args:
        model: The model, with the shapes of its inputs.
        declared: What :func:`normalize` returned.

    Returns:
        The values whose sizes are only declared, or follow from such sizes.
    """
    values = [output for node in model.graph.all_nodes() for output in node.outputs]
    sizes = Sizes(model)
    unknown = [value for value in values if None in (sizes.shape(value) or (None,))]
    taken: dict[ir.Value, ir.Shape] = {}
    for value in unknown:
        known, shape = sizes.shape(value), declared.get(value)
        if shape is None or (known is not None and len(known) != len(shape)):
            continue
        pairs = list(zip(known or [None] * len(shape), shape, strict=True))
        if any(size is None and _says_something(own) for size, own in pairs):
            taken[value] = ir.Shape([own if size is None else size for size, own in pairs])
    if not taken:
        return set()
    for value in unknown:
        value.shape = taken.get(value)
    infer_shapes(model)  # what follows from them
    sizes = Sizes(model)
    return {value for value in unknown if None not in (sizes.shape(value) or (None,))}


def _says_something(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, int) or dimension_name(dim) is not None


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
