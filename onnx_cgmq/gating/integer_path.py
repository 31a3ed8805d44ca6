"""Adds carried quantizers, so that onnxruntime stays in integers between integer kernels.

onnxruntime runs a Conv in integers only if its output is quantized too. It runs Add, Mul, Concat
and average pooling in integers only if all that they read and write is quantized. So activations
between two quantized convolutions need quantizers that no multiply-accumulate asks for, for example
on the way into a residual Add. These carried quantizers have 8 bits and cost no bit operations.

Codes are of use only to a later integer kernel. If there is none on any way to the outputs of the
graph, a carried quantizer would make one kernel faster and the outputs less accurate: logits in
front of Softmax would lie on 256 values. So there is none, and that kernel runs in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, INTEGER_KERNEL_BITS, Granularity, Ladder, Role
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.placement import values_read
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.layouts import transposed_views
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import (
    Dependence,
    dependence_of,
    is_clamp,
    mac_spec,
    moves_codes_fast,
    runs_on_codes,
)
from onnx_cgmq.graph.uses import element_uses, only_element_reader

GOES_ON_IN_FLOATS: Final = "no integer kernel comes between it and the outputs of the model"
"""Why the result of a node that could run in integers has no quantizer."""


def add_carried_quantizers(
    model: ir.Model,
    quantize: Callable[[ir.Value, ir.Node], ir.Node],
    chosen: Callable[[ir.Value], Ladder | None],
    floats: Collection[ir.Value] = (),
) -> frozenset[str]:
    """Adds carried quantizers to a gated graph, in place.

    Afterwards the result of an integer kernel has one reader, its quantizer. All nodes that read
    the result before read the quantized value instead. Results from which no way leads to another
    integer kernel get a quantizer only if the user chose widths for them
    (:func:`values_on_the_way_to`).

    Args:
        model: The gated model. Activations with more than one gate count as float, because no
            integer kernel reads them; so do those that can't have 8 bits or fewer.
        quantize: Inserts the quantizer of a value before a node that reads the value, and returns
            the quantizer node.
        chosen: Returns the widths that the user chose for a value, if any. A value that is to be
            float gets no quantizer.
        floats: The values that some node must read as floats, because the user wants it so.

    Returns:
        The names of the values that the user may choose widths for: of all that the integer kernels
        around them want quantized.
    """
    unquantized = {root for value in floats for root in (value, code_root(value))}
    path = _IntegerPath.of(model, unquantized)
    wanted = dict(path.values_to_quantize())
    names = frozenset(str(value.name) for value in wanted)
    while kept := [value for value in wanted if _is_float(chosen(value))]:
        for value in kept:
            decide(value.name, Verdict.FLOAT, "the settings keep it float")
        unquantized.update(kept)
        path = _IntegerPath.of(model, unquantized)
        wanted = dict(path.values_to_quantize())
    useful = values_on_the_way_to({*path.quantizers.values(), *path.integer_nodes}, model.graph)
    for value, before in wanted.items():
        if value in useful or chosen(value) is not None:
            path.quantizers[value] = quantize(value, before)
        else:
            decide(value.name, Verdict.FLOAT, GOES_ON_IN_FLOATS)
    for value, quantizer in path.quantizers.items():
        for reader, index in list(value.uses()):
            if is_gated_quantizer(reader):
                continue
            if needs_quantized_output(path.results.get(value)) or path.leads_to_integers(reader):
                reader.replace_input_with(index, quantizer.outputs[0])
    model.graph.sort()
    return names


def _is_float(ladder: Ladder | None) -> bool:
    return ladder is not None and ladder.widths == (FLOAT_BITS,)


@dataclass
class _IntegerPath:
    """The nodes that are to run in integers, and the values that need quantizers for it.

    Attributes:
        graph: The gated graph.
        quantizers: Each activation whose quantizer has one gate and may give codes, with that
            quantizer node.
        unquantized: The values that integer kernels must not take as codes.
        integer_nodes: The nodes without MACs that are to run in integers.
        results: Each result of an integer kernel, taken behind its clamps, with the node that makes
            it.
    """

    graph: ir.Graph
    quantizers: dict[ir.Value, ir.Node]
    unquantized: Collection[ir.Value]
    integer_nodes: frozenset[ir.Node]
    results: dict[ir.Value, ir.Node]

    @classmethod
    def of(cls, model: ir.Model, unquantized: Collection[ir.Value]) -> _IntegerPath:
        """Finds the nodes of a gated model that are to run in integers.

        It starts with all nodes that could, and leaves out those that can't or need not, until
        nothing changes: a node that is left out may be what another one depended on.

        Args:
            model: The gated model.
            unquantized: Values that integer kernels must not take as codes.
        """
        activations: dict[ir.Value, ir.Node] = {}
        operands: set[ir.Value] = set()
        floats = {*unquantized}
        for node, spec in quantizer_nodes(model).values():
            value = node.inputs[0]
            assert value is not None
            one_gate = spec.role is Role.WEIGHT or spec.granularity is Granularity.TENSOR
            has_codes = one_gate and spec.ladder.nonzero[0] <= INTEGER_KERNEL_BITS
            if has_codes and spec.role is Role.WEIGHT:
                operands.update(view for view, _ in transposed_views(node.outputs[0]))
            elif has_codes:
                operands.add(node.outputs[0])
            if spec.role is Role.ACTIVATION and has_codes and value not in floats:
                activations[value] = node
            elif spec.role is Role.ACTIVATION:
                floats.add(value)
        integer_nodes = frozenset(node for node in model.graph if _could_run_in_integers(node))
        while True:
            path = cls(model.graph, activations, floats, integer_nodes, {})
            path._find_results(operands)
            kept = path._nodes_that_go_on_in_integers()
            if kept == integer_nodes:
                return path
            integer_nodes = kept

    def values_to_quantize(self) -> Iterator[tuple[ir.Value, ir.Node]]:
        """Finds the values that need a quantizer and have none, each with its first reader."""
        read = [
            code_root(value)
            for node in self.graph
            if node in self.integer_nodes
            for value in node.inputs
            if value is not None
        ]
        made = [
            result
            for result, node in self.results.items()
            if needs_quantized_output(node) and not self._needs_no_quantizer(result)
        ]
        for value in dict.fromkeys([*made, *read]):
            if value not in self.quantizers:
                yield value, next(iter(value.uses())).node

    def leads_to_integers(self, node: ir.Node) -> bool:
        """Says whether a node runs in integers, or moves codes to a node that does."""
        if node in self.integer_nodes:
            return True
        return moves_codes_fast(node) and any(
            self.leads_to_integers(use.node) for output in node.outputs for use in output.uses()
        )

    def _find_results(self, operands: set[ir.Value]) -> None:
        """Fills :attr:`results`; ``operands`` are the quantized values that MAC nodes read."""
        for node in self.graph:
            if node in self.integer_nodes:
                runs = all(self._is_on_grid(value) for value in node.inputs)
            else:
                runs = _is_integer_mac(node, operands)
            result = _behind_clamps(node.outputs[0])
            if runs and result not in self.unquantized:
                self.results[result] = node

    def _nodes_that_go_on_in_integers(self) -> frozenset[ir.Node]:
        """Selects those of :attr:`integer_nodes` that can run in integers and are of use so.

        A node is of use in integers if its result goes on to a quantizer or an integer kernel. If
        only float nodes read it, a quantizer would cost accuracy and win no time.
        """
        kept = set(self.integer_nodes) & set(self.results.values())
        wanted: set[ir.Value] = set()
        for node in reversed(self.graph):
            passes = moves_codes_fast(node) or is_clamp(node)
            if node in kept and _behind_clamps(node.outputs[0]) not in wanted:
                kept.discard(node)
            if is_gated_quantizer(node) or node in kept:
                wanted.update(value for value in node.inputs if value is not None)
            elif passes and any(output in wanted for output in node.outputs):
                wanted.update(value for value in node.inputs[:1] if value is not None)
        return frozenset(kept)

    def _is_on_grid(self, value: ir.Value | None) -> bool:
        """Says whether a value is quantized, or the result of an integer kernel, perhaps moved."""
        return value is not None and (
            code_root(value) in self.quantizers or code_root(value) in self.results
        )

    def _needs_no_quantizer(self, value: ir.Value) -> bool:
        """Says whether the result of an integer kernel does without a quantizer of its own.

        It does if, behind movers, it has one already, is an output of the graph, or has no reader.
        """
        while value not in self.quantizers:
            uses = element_uses(value)
            if value.is_graph_output() or not uses:
                return True
            mover = uses[0][0]
            if len(uses) > 1 or not moves_codes_fast(mover):
                return False
            read = [output for output in mover.outputs if output.uses()]
            if len(read) > 1:
                return False
            value = read[0] if read else mover.outputs[0]
        return True


def _could_run_in_integers(node: ir.Node) -> bool:
    """Says whether a node without MACs has an integer kernel, and reads float activations only."""
    if not runs_on_codes(node):
        return False
    return all(
        value is not None and value.const_value is None and value.dtype is ir.DataType.FLOAT
        for value in node.inputs
    )


def _is_integer_mac(node: ir.Node, operands: set[ir.Value]) -> bool:
    """Says whether a MAC node has an integer kernel and quantized operands."""
    op = mac_spec(node)
    if op is None or not op.integer_kernel(node):
        return False
    return all(node.inputs[index] in operands for index in op.operands)


def needs_quantized_output(node: ir.Node | None) -> bool:
    """Says whether the integer kernel of a node can't give floats; those of Gemm and MatMul can."""
    return node is not None and (mac_spec(node) is None or standard_op(node) == "Conv")


def values_on_the_way_to(nodes: Collection[ir.Node], graph: ir.Graph) -> set[ir.Value]:
    """Finds the values that some way leads from to one of the given nodes of a graph.

    The ways go through any operators but those that look at the shape of a value only.
    """
    found: set[ir.Value] = set()
    for node in reversed(graph):
        leads_on = not found.isdisjoint(node.outputs)
        if node in nodes or (leads_on and dependence_of(node) is not Dependence.ON_SHAPES):
            found.update(value for value in values_read(node) if value is not None)
    return found


def code_root(value: ir.Value) -> ir.Value:
    """Returns the value above all movers that make a value: its elements are the same."""
    node = value.producer()
    while node is not None and moves_codes_fast(node):
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    return value


def _behind_clamps(value: ir.Value) -> ir.Value:
    """Returns the value behind the clamps that read a value, if each is the only reader."""
    reader = only_element_reader(value)
    while reader is not None and is_clamp(reader):
        value = reader.outputs[0]
        reader = only_element_reader(value)
    return value
