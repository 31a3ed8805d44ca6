"""Predicts which nodes onnxruntime's CPU provider will run in integers, before a file is written.

onnxruntime fuses a node into an integer kernel if its operands come from codes of at most 8 bits,
and if one quantizer alone reads its output. The output of Gemm and MatMul may also have no
quantizer at all. The form ``ort`` follows the prediction, so the file can't disagree with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Granularity, GridForm, Role
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.code_path import CodePath
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP, is_gated_quantizer
from onnx_cgmq.gating.integer_path import (
    GOES_ON_IN_FLOATS,
    code_root,
    needs_quantized_output,
    values_on_the_way_to,
)
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.nodes import called, operator_key, standard_op
from onnx_cgmq.graph.operators import mac_spec, runs_on_codes
from onnx_cgmq.graph.uses import element_uses, only_element_reader


class Kernel(str, Enum):
    """The arithmetic of the kernel that runs a node.

    PACKED: Codes of a weight, times floats or what the kernel itself rounds these to.
    """

    INTEGER = "integer"
    PACKED = "packed"
    FLOAT = "float"


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that runs a node, and the reason for it.

    Attributes:
        kernel: Arithmetic of the kernel, or ``None`` if it is unknown.
        reason: Why the kernel is float, slow or unknown, or what a packed one does; empty for a
            fast integer kernel.
        slow: Whether it is an integer kernel that is slower than another one would be.
    """

    kernel: Kernel | None
    reason: str = ""
    slow: bool = False


def narrowest_widths(gated: ir.Model) -> dict[str, int]:
    """Returns the narrowest width above 0 on the ladder of every gated tensor, by its name."""
    return {name: spec.ladder.nonzero[0] for name, (_, spec) in quantizer_nodes(gated).items()}


def predict_kernels(
    gated: ir.Model, widths: Mapping[str, int], overflowing: Collection[ir.Node] = ()
) -> dict[ir.Node, KernelChoice]:
    """Predicts the kernel that onnxruntime will run for each node of a gated graph.

    Args:
        gated: The gated model.
        widths: The widest width of every gated tensor, by its name. With
            :func:`narrowest_widths`, nodes that are predicted float stay float whatever is learned.
        overflowing: The nodes of the gated graph that round a bias which does not fit into INT32.

    Returns:
        The choice for every MAC node (in subgraphs too) and for every other node that could run in
        integers, in graph order. Nodes whose factor becomes part of a scale have no entry.
    """
    choices = dict(_choices(gated, widths, overflowing))
    for node, choice in choices.items():
        verdict = Verdict.FLOAT if choice.reason else Verdict.INTEGER
        decide(node.name, verdict, choice.reason)
    return choices


def integer_nodes(gated: ir.Model, widths: Mapping[str, int]) -> set[ir.Node]:
    """Returns the nodes that would run in integers, as :func:`predict_kernels` predicts them.

    Nothing is decided yet, so no decision is written to the log.
    """
    choices = _choices(gated, widths, ())
    return {node for node, choice in choices if choice.kernel is Kernel.INTEGER}


def _choices(
    gated: ir.Model, widths: Mapping[str, int], overflowing: Collection[ir.Node]
) -> Iterator[tuple[ir.Node, KernelChoice]]:
    predictor = _Predictor(gated, widths, overflowing)
    for node in ir.traversal.RecursiveGraphIterator(gated.graph):
        if node in predictor.absorbed:
            continue
        if mac_spec(node) is not None or _could_run_on_codes(node):
            reason = predictor.why_float(node)
            yield node, KernelChoice(Kernel.FLOAT if reason else Kernel.INTEGER, reason)


def has_codes(spec: QuantizerSpec, width: int) -> bool:
    """Says whether a tensor is written as codes of at most 8 bits, which integer kernels read.

    Args:
        spec: The quantizer of the tensor.
        width: The widest width in the tensor.
    """
    if spec.form is GridForm.DYNAMIC:
        return False  # the kernel that reads the tensor makes its codes
    uniform = spec.role is not Role.ACTIVATION or spec.granularity is Granularity.TENSOR
    return uniform and width <= INTEGER_KERNEL_BITS


class _Predictor:
    """Finds the reasons why nodes of one gated graph run in floats.

    The arguments are those of :func:`predict_kernels`.
    """

    def __init__(
        self, gated: ir.Model, widths: Mapping[str, int], overflowing: Collection[ir.Node]
    ) -> None:
        self._graph = gated.graph
        self._widths = widths
        self._overflowing = overflowing
        self._specs = dict(quantizer_nodes(gated).values())
        self._quantized_at: dict[ir.Value, int] = {}
        """The number of QuantizeLinear nodes that will read each value."""
        self.absorbed: set[ir.Node] = set()
        """Nodes whose factor becomes part of a scale, so that they are not written."""
        for node, spec in self._specs.items():
            value = node.inputs[0]
            if spec.role is Role.ACTIVATION and self._has_codes(spec) and value is not None:
                path = CodePath.above(value)
                self.absorbed.update(m.node for m in path.movers if m.factor is not None)
                self._quantized_at[path.source] = self._quantized_at.get(path.source, 0) + 1
        activations = {n for n, spec in self._specs.items() if spec.role is Role.ACTIVATION}
        self._useful = values_on_the_way_to(activations, gated.graph)
        """Values whose codes are of use, because a quantizer follows."""

    def why_float(self, node: ir.Node) -> str:
        """Says why a node runs in floats; empty if it runs in integers."""
        if node.graph is not self._graph:
            return "it is inside a subgraph, which has no quantizers"
        operator = mac_spec(node)
        if operator is None:
            return self._why_float_without_macs(node)
        if not operator.integer_kernel(node):
            return no_kernel_reason(node)
        reasons = [
            self._operand_reason(node, i, value) for i, value in operator.operand_values(node)
        ]
        if not self._is_dynamic(node.inputs[0]):  # whose bias and output are float
            reasons += [self._bias_reason(node, operator), self._output_reason(node)]
        return next(filter(None, reasons), "")

    def _is_dynamic(self, value: ir.Value | None) -> bool:
        """Says whether an operand is an activation that is quantized at run time."""
        producer = value.producer() if value is not None else None
        spec = self._specs.get(producer) if producer is not None else None
        return spec is not None and spec.form is GridForm.DYNAMIC

    def _why_float_without_macs(self, node: ir.Node) -> str:
        """Says why a node that is no MAC node runs in floats; empty if it runs in integers."""
        for value in node.inputs:
            if value is None:
                continue
            producer = code_root(value).producer()
            spec = self._specs.get(producer) if producer is not None else None
            if spec is None or not self._has_codes(spec):
                return f"its input '{value.name}' is not quantized"
        return self._output_reason(node)

    def _has_codes(self, spec: QuantizerSpec) -> bool:
        return has_codes(spec, self._widths[spec.tensor])

    def _operand_reason(self, node: ir.Node, index: int, value: ir.Value) -> str:
        """Says why an operand keeps a MAC node from running in integers; empty if it doesn't.

        Args:
            node: The MAC node.
            index: Index of the input that is the operand.
            value: The operand.
        """
        path = transposes_above(value)
        source = path[-1].inputs[0] if path else value
        producer = source.producer() if source is not None else None
        spec = self._specs.get(producer) if producer is not None else None
        if spec is None or (path and spec.role is not Role.WEIGHT):
            kind = "weight" if value.const_value is not None else "activation"
            return f"{kind} '{value.name}' is not quantized"
        width = self._widths[spec.tensor]
        what = f"{spec.role.value} '{spec.tensor}'"
        if width > INTEGER_KERNEL_BITS:
            return (
                f"{what} has {width} bits, but integer kernels take at most {INTEGER_KERNEL_BITS}"
            )
        if spec.form is GridForm.DYNAMIC:
            return ""
        if not self._has_codes(spec):
            return f"{what} has a width for each {spec.granularity.value}, not one width"
        if spec.role is Role.WEIGHT and standard_op(node) != "Conv":
            # Kernels of matrix products read signed codes, and a step for each column, only as
            # their second factor.
            if index == 0:
                return f"{what} is the first factor, but integer kernels take it as the second"
            if spec.block is not None:
                return (
                    f"{what} has a step for each block, and integer kernels add up whole channels"
                )
            if spec.has_channels and len(spec.shape) != 2:
                return f"{what} has a step for each channel and {len(spec.shape)} dimensions, not 2"
        return ""

    def _bias_reason(self, node: ir.Node, operator: OpSpec) -> str:
        """Says why its bias keeps a MAC node from running in integers; empty if it doesn't."""
        bias = operator.bias_value(node)
        producer = bias.producer() if bias is not None else None
        if producer is not None and producer in self._overflowing:
            return "its bias does not fit into the INT32 accumulator"
        if bias is None or (producer is not None and producer.op_type == ACCUMULATOR_OP):
            return ""
        return f"bias '{bias.name}' is not constant"

    def _output_reason(self, node: ir.Node) -> str:
        """Says why its output keeps a node from running in integers; empty if it doesn't."""
        output = node.outputs[0]
        quantizers = self._quantized_at.get(output, 0)
        if quantizers and only_element_reader(output):
            return ""
        if not quantizers and not needs_quantized_output(node):
            return ""
        if output.uses() and output not in self._useful:
            return f"its output '{output.name}' stays float: {GOES_ON_IN_FLOATS}"
        also, reader = "also " if quantizers else "", next(self._float_readers(output), "")
        if reader:
            return f"its output is {also}read as float by {reader}"
        return f"its output is {also}an output of the model, '{output.name}'"

    def _float_readers(self, value: ir.Value) -> Iterator[str]:
        """Lists the nodes of the written file that read a value as float, except QuantizeLinear."""
        for node, _ in element_uses(value):
            if not is_gated_quantizer(node):
                yield called(node)
            elif not self._has_codes(self._specs[node]):
                yield from (called(reader.node) for reader in node.outputs[0].uses())


def _could_run_on_codes(node: ir.Node) -> bool:
    """Says whether a node without MACs computes on floats and has an integer kernel."""
    return runs_on_codes(node) and node.outputs[0].dtype is ir.DataType.FLOAT


def no_kernel_reason(node: ir.Node) -> str:
    """Returns the reason of a node that has no integer kernel, whatever its operands are."""
    what = "Gemm with alpha or beta" if standard_op(node) == "Gemm" else operator_key(node)
    return f"onnxruntime's CPU provider has no integer kernel for {what}"
