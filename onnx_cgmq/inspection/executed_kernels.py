"""Looks up which kernel onnxruntime runs for each MAC node of a file, and why it is float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role
from onnx_cgmq.contract.form import Form, written_form
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.integer_path import needs_quantized_output
from onnx_cgmq.gating.predicted_kernels import Kernel, KernelChoice, no_kernel_reason
from onnx_cgmq.gating.summed_pairs import sum_order
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.nodes import called, int_attribute, node_key, operator_key, standard_op
from onnx_cgmq.graph.operators import computes_on_codes, mac_spec
from onnx_cgmq.graph.qonnx import is_quant
from onnx_cgmq.inspection.implicit_operands import INT8_ACCURACY
from onnx_cgmq.inspection.operands import Operands
from onnx_cgmq.inspection.patterns.codes import is_quantize
from onnx_cgmq.ort.executed import executed_operators

_UNLOADED: Final = "onnxruntime can't load the model"
_GONE: Final = (
    "it is not in the graph that onnxruntime runs: it was folded, or fused into another node"
)
_CONV_WEIGHTS: Final = {"Conv": 1, "QLinearConv": 3}
"""Convolutions of activations and weights, with the index of the weight."""
_BYTES: Final = (ir.DataType.INT8, ir.DataType.UINT8)


def executed_kernels(
    model: ModelLike, graph: ir.Model, operands: Operands, names: Mapping[str, str]
) -> tuple[dict[str, KernelChoice], str]:
    """Looks up the kernel of each MAC node in onnxruntime's optimized graph.

    Args:
        model: The model, as the user gave it.
        graph: The same model in memory, with the former names of its values.
        operands: The operands of the model.
        names: Former names of values by their names in the file, where they differ.

    Returns:
        The kernels by the name of the node's first output; and a note if onnxruntime can't load the
        model, else an empty text. There are no kernels for the forms that are not for onnxruntime:
        ``qonnx``, and ``native`` and ``tensorrt`` if onnxruntime can't load them.
    """
    nodes = [node for node in graph.graph.all_nodes() if mac_spec(node) is not None]
    if any(is_quant(node) for node in graph.graph.all_nodes()):
        return {}, ""
    try:
        found = executed_operators(model)
    except ModelError as error:
        if written_form(graph) in (Form.NATIVE, Form.TENSORRT):
            return {}, ""
        return {node_key(node): KernelChoice(None, _UNLOADED) for node in nodes}, str(error)
    executed = {names.get(key, key): operator for key, operator in found.items()}
    kernels = {node_key(n): _kernel(n, executed.get(node_key(n)), operands) for n in nodes}
    return kernels, ""


def _kernel(node: ir.Node, runs: str | None, operands: Operands) -> KernelChoice:
    """Says which kernel runs a node, and why.

    Args:
        node: The MAC node.
        runs: The operator that onnxruntime runs in its place, or ``None`` if there is none.
        operands: The operands of the model.
    """
    if runs is None:
        return KernelChoice(None, _GONE)
    if computes_on_codes(runs):
        reason = _why_slow(node, operands)
        return KernelChoice(Kernel.INTEGER, reason, slow=bool(reason))
    if runs == "MatMulNBits":
        return KernelChoice(Kernel.PACKED, _what_packed_does(node))
    return KernelChoice(Kernel.FLOAT, _why_float(node, runs, operands))


def _what_packed_does(node: ir.Node) -> str:
    """Says what MatMulNBits multiplies, at the level of its node or else of stock onnxruntime."""
    level = INT8_ACCURACY
    if node.op_type == "MatMulNBits":
        level = int_attribute(node, "accuracy_level", 0)
    if level == INT8_ACCURACY:
        return "MatMulNBits reads the weight packed, and rounds the activation to 8 bits in blocks"
    return "MatMulNBits reads the weight packed, and multiplies floats"


def _why_slow(node: ir.Node, operands: Operands) -> str:
    """Says why an integer kernel is slow; empty if it is fast.

    A Conv of UINT8 weights is slow on x86, whether it has VNNI or not. A depthwise Conv has the
    same kernel for both types.
    """
    index = _CONV_WEIGHTS.get(operator_key(node))
    if index is None:
        return ""
    reading = operands.readings.get(operands.source(node, index).name)
    if reading is None or reading.role is not Role.WEIGHT or len(reading.shape) < 3:
        return ""
    if reading.stored is not ir.DataType.UINT8 or sum_order(node, reading.shape) is None:
        return ""
    return f"weight '{reading.name}' is UINT8, which Conv multiplies more slowly than INT8"


def _why_float(node: ir.Node, runs: str, operands: Operands) -> str:
    """Names the first thing in the file that keeps a MAC node from running in integers.

    Args:
        node: The MAC node.
        runs: The operator that onnxruntime runs in its place.
        operands: The operands of the model.
    """
    spec = mac_spec(node)
    assert spec is not None
    reasons = [*_operand_reasons(node, spec, operands)]
    if not reasons and not spec.integer_kernel(node):
        reasons.append(no_kernel_reason(node))
    reasons += [*_output_reasons(node), *_fusion_reasons(node, runs)]
    reasons += _bias_reasons(node, spec)
    return next(iter(reasons), f"onnxruntime runs {runs}, and nothing in the file shows why")


def _operand_reasons(node: ir.Node, spec: OpSpec, operands: Operands) -> Iterator[str]:
    """Lists what is wrong with the operands of a node for an integer kernel."""
    for index, value in spec.operand_values(node):
        reading = operands.readings.get(operands.source(node, index).name)
        if reading is None:
            yield f"'{value.name}' is not quantized"
            continue
        what, widest = f"{reading.role.value} '{reading.name}'", int(np.max(reading.widths))
        if widest > INTEGER_KERNEL_BITS:
            limit = f"but integer kernels take at most {INTEGER_KERNEL_BITS}"
            yield f"{what} has {widest} bits, {limit}"
        elif reading.role is Role.ACTIVATION:
            if reading.widths.ndim:
                yield f"{what} has a width for each {reading.granularity.value}, not one width"
            elif reading.stored not in _BYTES:
                yield f"{what} is {reading.stored.name}, but integer kernels take INT8 and UINT8"
        else:
            dtype = _dequantized_type(value)
            if dtype is not None and dtype not in _BYTES:
                yield f"{what} is {dtype.name}, which integer kernels take only behind Cast to INT8"
            elif index == 0 and standard_op(node) in ("Gemm", "MatMul"):
                yield f"{what} is the first factor, but integer kernels take it as the second"


def _dequantized_type(value: ir.Value) -> ir.DataType | None:
    """Returns the type of the codes of which a DequantizeLinear makes a value, if one does."""
    node = value.producer()
    if node is None or standard_op(node) != "DequantizeLinear" or node.inputs[0] is None:
        return None
    codes = node.inputs[0]
    return codes.dtype if codes.const_value is None else codes.const_value.dtype


def _output_reasons(node: ir.Node) -> Iterator[str]:
    """Lists what is wrong with the output of a node for an integer kernel."""
    output = node.outputs[0]
    readers = [use.node for use in output.uses()]
    floats = [reader for reader in readers if not is_quantize(reader)]
    also = "also " if len(floats) < len(readers) else ""
    if output.is_graph_output() and (also or needs_quantized_output(node)):
        yield f"its output is {also}an output of the model, '{output.name}'"
    elif floats and (also or needs_quantized_output(node)):
        yield f"its output is {also}read as float by {called(floats[0])}"


def _fusion_reasons(node: ir.Node, runs: str) -> Iterator[str]:
    """Says so if onnxruntime fused a MatMul with the Add behind it, which has a float kernel."""
    readers = [use.node for use in node.outputs[0].uses()]
    if standard_op(node) == "MatMul" and runs == "Gemm" and len(readers) == 1:
        yield f"onnxruntime fuses it with {called(readers[0])} into a float Gemm"


def _bias_reasons(node: ir.Node, spec: OpSpec) -> Iterator[str]:
    """Lists what is wrong with the bias of a node for an integer kernel."""
    bias = spec.bias_value(node)
    producer = bias.producer() if bias is not None else None
    if bias is not None and (producer is None or standard_op(producer) != "DequantizeLinear"):
        yield f"bias '{bias.name}' is float, but integer kernels add INT32"
