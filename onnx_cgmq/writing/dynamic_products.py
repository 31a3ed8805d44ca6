"""Writes activations that are quantized at run time, and the products that read them.

What ``MatMul`` or ``Gemm`` computes is spelled out as onnxruntime's ``quantize_dynamic`` does it::

    codes, step, zero_point = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(codes, weight, zero_point, 0)) * (step * weight_step) + bias

onnxruntime makes one kernel of this: DynamicQuantizeMatMul, or MatMulIntegerToFloat where several
products read the activation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, GridForm
from onnx_cgmq.graph.uses import shape_uses
from onnx_cgmq.writing.embedded_plan import QUANTIZED
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.weights import StoredWeight, write_kernel_codes


@dataclass(frozen=True)
class _Activation:
    """The outputs of DynamicQuantizeLinear."""

    codes: ir.Value
    step: ir.Value
    zero_point: ir.Value


@dataclass(frozen=True)
class ProductWeight:
    """A weight as MatMulInteger reads it: ``[summed, outputs]``."""

    codes: ir.Value
    step: ir.Value
    zero_point: ir.Value


def is_dynamic(tensor: GatedTensor | None) -> bool:
    """Says whether a tensor is an activation that is quantized at run time."""
    return (
        tensor is not None
        and tensor.plan.form is GridForm.DYNAMIC
        and tensor.plan.grid_width < FLOAT_BITS
    )


def dynamic_products(tensors: GatedTensors, integer: Collection[ir.Node]) -> set[ir.Node]:
    """Returns those of the nodes that run in integers whose activation is quantized at run time."""
    return {node for node in integer if node.inputs and is_dynamic(tensors.of(node.inputs[0]))}


def write_product_weight(
    emit: NodeWriter, weight: StoredWeight, axes: tuple[int, ...]
) -> ProductWeight:
    """Writes how MatMulInteger reads the codes of a weight.

    Args:
        emit: Writes nodes before the quantizer of the weight.
        weight: The codes of the weight.
        axes: The axes of the weight as the product reads it; empty if these are its own.
    """
    weight.codes.name = f"{weight.spec.tensor}{QUANTIZED}"  # by which it is known to readers
    codes = write_kernel_codes(emit, weight, axes)
    assert codes.dtype is not None
    zero_point = np.full(weight.step.shape, weight.zero_point, codes.dtype.numpy())
    step = emit.constant("scale", weight.step)
    return ProductWeight(codes, step, emit.constant("zero_point", zero_point))


def write_dynamic_activation(tensor: GatedTensor, weights: Mapping[ir.Node, ProductWeight]) -> None:
    """Writes the codes of an activation, and the products that read them or their floats.

    Args:
        tensor: The activation.
        weights: The weights of all products that are to run in integers.
    """
    emit = NodeWriter(tensor.node, tensor.name)
    activation = _codes(emit, tensor.source)
    quantized = tensor.node.outputs[0]
    for node, index in list(shape_uses(quantized)):
        node.replace_input_with(index, tensor.source)
    for use in list(quantized.uses()):
        if use.node in weights:
            _write_product(use.node, activation, weights[use.node])
    if quantized.uses():
        tensor.replace(_floats(emit, activation))


def _codes(emit: NodeWriter, x: ir.Value) -> _Activation:
    made = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{emit.base}.codes")
    types = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
    suffixes = ("quantized", "scale", "zero_point")  # the first by which it is known to readers
    for output, suffix, dtype in zip(made.outputs, suffixes, types, strict=True):
        output.name, output.type = f"{emit.base}.{suffix}", ir.TensorType(dtype)
        output.shape = x.shape if output is made.outputs[0] else ir.Shape([])
    emit.graph.insert_before(emit.anchor, made)
    return _Activation(*made.outputs)


def _write_product(node: ir.Node, x: _Activation, weight: ProductWeight) -> None:
    """Replaces a MatMul or Gemm; its result keeps its name."""
    result, floats = node.outputs[0], ir.DataType.FLOAT
    name, shape = str(result.name), result.shape
    emit = NodeWriter(node, name)
    operands = [x.codes, weight.codes, x.zero_point, weight.zero_point]
    sums = emit.node("MatMulInteger", operands, "sums", ir.DataType.INT32, shape)
    made = sums.producer()
    assert made is not None
    made.name = node.name
    y = emit.node("Cast", [sums], "float_sums", floats, shape, {"to": int(floats)})
    step = emit.node("Mul", [x.step, weight.step], "step", floats, weight.step.shape)
    y = emit.node("Mul", [y, step], "product", floats, shape)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        y = emit.node("Add", [y, bias], "sum", floats, shape)
    result.replace_all_uses_with(y, replace_graph_outputs=True)
    emit.graph.remove(node, safe=True)
    y.name = name


def _floats(emit: NodeWriter, x: _Activation) -> ir.Value:
    """Writes the floats of codes: ``Cast, Sub, Mul``, of which onnxruntime fuses nothing."""
    floats, shape = ir.DataType.FLOAT, x.codes.shape
    to_float = {"to": int(floats)}
    codes = emit.node("Cast", [x.codes], "float_codes", floats, shape, to_float)
    zero_point = emit.node(
        "Cast", [x.zero_point], "float_zero_point", floats, ir.Shape([]), to_float
    )
    centered = emit.node("Sub", [codes, zero_point], "centered", floats, shape)
    return emit.node("Mul", [centered, x.step], "float.quantized", floats, shape)
