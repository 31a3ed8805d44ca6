"""Which nodes onnxruntime's CPU provider will run in integers: known before anything is written.

The form ``ort`` writes by this very answer, so that prediction and file can't disagree. It follows
from what onnxruntime fuses: a node whose operands come from 8-bit codes, and whose output goes into
one quantizer (Gemm and MatMul: or into none at all).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Granularity, Role
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.code_path import CodePath
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP, is_gated_quantizer
from onnx_cgmq.gating.integer_path import code_root, needs_quantized_output
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.nodes import operator_key, standard_op
from onnx_cgmq.graph.operators import mac_spec, runs_on_codes
from onnx_cgmq.graph.uses import has_one_reader


class Kernel(str, Enum):
    """Arithmetic of the kernel that runs a node."""

    INTEGER = "integer"
    FLOAT = "float"


@dataclass(frozen=True)
class KernelChoice:
    """Which kernel runs a node.

    Attributes:
        kernel: Its arithmetic, or ``None`` if it can't be told.
        reason: Why it is float or can't be told; empty for an integer kernel.
    """

    kernel: Kernel | None
    reason: str = ""


def narrowest_widths(gated: ir.Model) -> dict[str, int]:
    """The narrowest width above 0 that each tensor may get: before anything is learned."""
    return {name: spec.ladder.nonzero[0] for name, (_, spec) in quantizer_nodes(gated).items()}


def predict_kernels(
    gated: ir.Model, widths: Mapping[str, int], overflowing: Collection[ir.Node] = ()
) -> dict[ir.Node, KernelChoice]:
    """Says which kernel onnxruntime will run for each node of a gated graph.

    Args:
        gated: The gated model.
        widths: Bits of the widest entry of every gated tensor, by name. With
            :func:`narrowest_widths`, what is float is so whatever is learned.
        overflowing: Accumulators whose bias does not fit into INT32.

    Returns:
        The choice for every node that multiplies and accumulates (in subgraphs too), and for every
        other node that could run in integers, in graph order; for none whose factor becomes part of
        a scale.
    """
    predictor = _Predictor(gated, widths, overflowing)
    choices = {}
    for node in ir.traversal.RecursiveGraphIterator(gated.graph):
        if node in predictor.absorbed:
            continue
        if mac_spec(node) is not None or _is_float_operator(node):
            reason = predictor.why_float(node)
            choices[node] = KernelChoice(Kernel.FLOAT if reason else Kernel.INTEGER, reason)
            decide(node.name, Verdict.FLOAT if reason else Verdict.INTEGER, reason)
    return choices


def has_codes(spec: QuantizerSpec, width: int) -> bool:
    """Whether a tensor is written as 8-bit codes that integer kernels take.

    Args:
        spec: Its quantizer.
        width: Bits of its widest entry.
    """
    uniform = spec.role is not Role.ACTIVATION or spec.granularity is Granularity.TENSOR
    return uniform and width <= INTEGER_KERNEL_BITS


class _Predictor:
    def __init__(
        self, gated: ir.Model, widths: Mapping[str, int], overflowing: Collection[ir.Node]
    ) -> None:
        self._graph = gated.graph
        self._widths = widths
        self._overflowing = overflowing
        self._specs = dict(quantizer_nodes(gated).values())
        self._quantized_at: dict[ir.Value, int] = {}
        """How many quantizers are written right behind a value."""
        self.absorbed: set[ir.Node] = set()
        """Nodes whose factor becomes part of a scale."""
        for node, spec in self._specs.items():
            value = node.inputs[0]
            if spec.role is Role.ACTIVATION and self._has_codes(spec) and value is not None:
                path = CodePath.above(value)
                self.absorbed.update(m.node for m in path.movers if m.factor is not None)
                self._quantized_at[path.source] = self._quantized_at.get(path.source, 0) + 1

    def why_float(self, node: ir.Node) -> str:
        """Why a node runs in floats; empty if it runs in integers."""
        if node.graph is not self._graph:
            return "inside of a subgraph, which has no quantizers"
        operator = mac_spec(node)
        if operator is None:
            return self._why_float_between(node)
        if not operator.integer_kernel(node):
            return no_integer_kernel(node)
        reasons = [self._operand(node, i, value) for i, value in operator.operand_values(node)]
        reasons += [self._bias(node, operator), self._output(node)]
        return next(filter(None, reasons), "")

    def _why_float_between(self, node: ir.Node) -> str:
        for value in node.inputs:
            if value is None:
                continue
            producer = code_root(value).producer()
            spec = self._specs.get(producer) if producer is not None else None
            if spec is None or not self._has_codes(spec):
                return f"its input '{value.name}' is not quantized"
        return self._output(node)

    def _has_codes(self, spec: QuantizerSpec) -> bool:
        return has_codes(spec, self._widths[spec.tensor])

    def _operand(self, node: ir.Node, index: int, value: ir.Value) -> str:
        producer = value.producer()
        spec = self._specs.get(producer) if producer is not None else None
        if spec is None:
            if transposes_above(value):
                return f"'{value.name}' is transposed after its quantizer"
            kind = "weight" if value.const_value is not None else "activation"
            return f"{kind} '{value.name}' is not quantized"
        width = self._widths[spec.tensor]
        what = f"{spec.role.value} '{spec.tensor}'"
        if width > INTEGER_KERNEL_BITS:
            return f"{what} has {width} bits, integer kernels take {INTEGER_KERNEL_BITS}"
        if not self._has_codes(spec):
            return f"{what} has a width for each {spec.granularity.value}"
        if spec.role is Role.WEIGHT and standard_op(node) != "Conv":
            # The matrix kernels take signed codes and steps of columns in a second factor alone.
            if index == 0:
                return f"{what} is the first factor"
            if spec.has_channels and len(spec.shape) != 2:
                return f"{what} has a step for each channel and {len(spec.shape)} dimensions"
        return ""

    def _bias(self, node: ir.Node, operator: OpSpec) -> str:
        bias = operator.bias_value(node)
        producer = bias.producer() if bias is not None else None
        if producer is not None and producer in self._overflowing:
            return "its bias does not fit into INT32 at the step of its products"
        if bias is None or (producer is not None and producer.op_type == ACCUMULATOR_OP):
            return ""
        return f"bias '{bias.name}' is not constant"

    def _output(self, node: ir.Node) -> str:
        """What stands in the way behind a node."""
        output = node.outputs[0]
        quantizers = self._quantized_at.get(output, 0)
        if quantizers and has_one_reader(output):
            return ""
        if not quantizers and not needs_quantized_output(node):
            return ""
        reader = next(self._float_readers(output), "")
        read = f"read as float by {reader}" if reader else "an output of the model"
        return f"its output '{output.name}' is {'also ' if quantizers else ''}{read}"

    def _float_readers(self, value: ir.Value) -> Iterator[str]:
        """Nodes that read a value as it is, what is written of quantizers left out."""
        for use in value.uses():
            node = use.node
            if not is_gated_quantizer(node):
                yield f"{node.op_type} '{node.name}'"
            elif not self._has_codes(self._specs[node]):
                yield from (f"{u.node.op_type} '{u.node.name}'" for u in node.outputs[0].uses())


def _is_float_operator(node: ir.Node) -> bool:
    return runs_on_codes(node) and node.outputs[0].dtype is ir.DataType.FLOAT


def no_integer_kernel(node: ir.Node) -> str:
    """Says that there is no integer kernel for a node whatever its operands are."""
    what = "Gemm with alpha or beta" if standard_op(node) == "Gemm" else operator_key(node)
    return f"onnxruntime's CPU provider has no integer kernel for {what}"
