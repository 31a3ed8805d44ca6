"""Writes weights that onnxruntime multiplies packed, in its kernel MatMulNBits.

Such a weight is INT2, INT4 or INT8 straight into DequantizeLinear, as ``[summed, outputs]``. With
its optimizations off, onnxruntime makes floats of it at every run, and computes the same but for
the rounding of activations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.gating.packed_weights import (
    PackedReaders,
    kernel_block,
    packed_readers,
    why_not_in_type,
)
from onnx_cgmq.gating.predicted_kernels import Kernel, KernelChoice
from onnx_cgmq.graph.integer_types import pack
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter

PACKED: Final = KernelChoice(
    Kernel.PACKED,
    "MatMulNBits reads the weight packed, and by default rounds the activation to 8 bits in blocks",
)


def packed_products(
    tensors: GatedTensors, integer: Collection[ir.Node]
) -> Mapping[ir.Node, PackedReaders]:
    """Finds the weights that can be written packed.

    Args:
        tensors: The gated tensors of the model.
        integer: The nodes that are to run in integers.

    Returns:
        The products that read each of them, by the quantizer of the weight.
    """
    found = {}
    for tensor in tensors.of_role(Role.WEIGHT):
        readers = _readers(tensors, tensor, integer)
        if isinstance(readers, str):
            decide(tensor.name, Verdict.LEFT, f"its codes become floats: {readers}")
            continue
        found[tensor.node] = readers
        for node in readers.nodes:
            decide(node.name, Verdict.PACKED, "its activation is float")
    return found


def _readers(
    tensors: GatedTensors, tensor: GatedTensor, integer: Collection[ir.Node]
) -> PackedReaders | str:
    """Returns the products that read a weight packed, or the reason why it can't be written so."""
    spec, width = tensor.spec, tensor.plan.grid_width
    if not tensors.types.runtime.multiplies_packed:
        return "it is not known that all wanted versions of onnxruntime multiply packed weights"
    if width == FLOAT_BITS or spec.granularity is not Granularity.TENSOR:
        return "it has no single width below 32 bits"
    readers = packed_readers(tensor.node.outputs[0], spec.shape)
    if isinstance(readers, str):
        return readers
    for node in readers.nodes:
        activation = tensors.of(node.inputs[0])
        if node in integer or (activation is not None and not activation.plan.is_float):
            return f"the activation of {node.op_type} '{node.name}' is quantized"
    outputs = spec.shape[1 - readers.summed_axis]
    return why_not_in_type(tensors.types.narrowest(width), outputs, spec.block) or readers


def write_packed(tensors: GatedTensors, tensor: GatedTensor, readers: PackedReaders) -> None:
    """Writes a weight, and makes its readers read it.

    One step for a whole channel or weight is repeated for blocks when the file is loaded.
    onnxruntime does so by itself too, but for blocks of 32, whose kernels take up to five times as
    long.

    Args:
        tensors: The gated tensors of the model.
        tensor: The weight.
        readers: What :func:`packed_products` found for it.
    """
    grid = tensor.codes()
    assert grid is not None
    emit = NodeWriter(tensor.node, tensor.name)
    codes, scale = (grid.codes.T, grid.scale.T) if readers.turned else (grid.codes, grid.scale)
    packed = pack(codes, tensors.types.narrowest(grid.width), f"{emit.base}.codes")
    block = tensor.spec.block
    step = emit.constant("scale", scale if scale.ndim == 2 else scale.reshape(1, -1))
    if block is None:
        block = kernel_block(len(codes))
        step = _repeated(emit, step, (-(-len(codes) // block), codes.shape[1]))
    inputs = [emit.constant("codes", packed), step]
    along = {"axis": 0, "block_size": block}
    shape = ir.Shape(codes.shape)
    value = emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, shape, along)
    for node in readers.nodes:
        node.replace_input_with(1, value)
        node.attributes.pop("transB", None)


def _repeated(emit: NodeWriter, step: ir.Value, shape: tuple[int, int]) -> ir.Value:
    """Repeats a step of channels, or a single one, for all blocks."""
    sizes = emit.constant("scale_shape", np.array(shape, np.int64))
    return emit.node("Expand", [step, sizes], "scale_of_blocks", ir.DataType.FLOAT, ir.Shape(shape))
