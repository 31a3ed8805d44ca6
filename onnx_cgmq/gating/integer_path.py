"""Keeps what flows between integer kernels on grids, so that onnxruntime never leaves the integers.

A Conv runs in integers only if its output is quantized too, and so do Add, Mul, Concat and pooling
if all that they read and write is. Between two quantized convolutions that takes quantizers which
no multiply-accumulate asks for: on the way into a residual Add, say. They have 8 bits and cost no
bit operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import is_clamp, mac_spec, moves_codes_fast, runs_on_codes
from onnx_cgmq.graph.uses import only_reader


def stay_in_integers(
    model: ir.Model, quantize: Callable[[ir.Value, ir.Node], ir.Node]
) -> tuple[ir.Value, ...]:
    """Adds the quantizers that keep a gated graph in integers, in place.

    What an integer kernel makes then has one reader, its quantizer, and all others read the
    quantized value.

    Args:
        model: A gated model; those of its operands with one gate for each activation count.
        quantize: Makes the 8-bit quantizer of a value, before a node that reads it.

    Returns:
        The values that got one.
    """
    path = _IntegerPath.of(model)
    added = []
    for value, before in list(path.open_ends()):
        path.quantizers[value] = quantize(value, before)
        added.append(value)
    for value, quantizer in path.quantizers.items():
        for reader, index in list(value.uses()):
            if is_gated_quantizer(reader):
                continue
            if needs_quantized_output(path.ends.get(value)) or path.leads_to_integers(reader):
                reader.replace_input_with(index, quantizer.outputs[0])
    model.graph.sort()
    return tuple(added)


@dataclass
class _IntegerPath:
    """What runs in integers, and what it takes.

    Attributes:
        graph: The gated graph.
        quantizers: Quantizer node of every activation that has one with a single gate.
        chosen: Operators without MACs that are to run in integers.
        ends: Values that integer kernels make, behind their clamps, and by which node.
    """

    graph: ir.Graph
    quantizers: dict[ir.Value, ir.Node]
    chosen: frozenset[ir.Node]
    ends: dict[ir.Value, ir.Node]

    @classmethod
    def of(cls, model: ir.Model) -> _IntegerPath:
        activations, operands = {}, set()
        for node, spec in quantizer_nodes(model).values():
            value = node.inputs[0]
            if spec.role is Role.ACTIVATION and spec.granularity is Granularity.TENSOR:
                assert value is not None
                activations[value] = node
            if spec.role is Role.WEIGHT or value in activations:
                operands.add(node.outputs[0])
        chosen = frozenset(node for node in model.graph if _could_run_in_integers(node))
        while True:
            path = cls(model.graph, activations, chosen, {})
            path._find_ends(operands)
            kept = path._worthwhile()
            if kept == chosen:
                return path
            chosen = kept

    def open_ends(self) -> Iterator[tuple[ir.Value, ir.Node]]:
        """Values that need a quantizer and have none, each with its first reader."""
        read = [
            code_root(value)
            for node in self.graph
            if node in self.chosen
            for value in node.inputs
            if value is not None
        ]
        made = [
            end
            for end, node in self.ends.items()
            if needs_quantized_output(node) and not self._is_covered(end)
        ]
        for value in dict.fromkeys([*made, *read]):
            if value not in self.quantizers:
                yield value, next(iter(value.uses())).node

    def leads_to_integers(self, node: ir.Node) -> bool:
        """Whether a node runs in integers, or moves codes to one that does."""
        if node in self.chosen:
            return True
        return moves_codes_fast(node) and any(
            self.leads_to_integers(use.node) for output in node.outputs for use in output.uses()
        )

    def _find_ends(self, operands: set[ir.Value]) -> None:
        for node in self.graph:
            if node in self.chosen:
                runs = all(self._is_on_grid(value) for value in node.inputs)
            else:
                runs = _is_integer_mac(node, operands)
            if runs:
                self.ends[_behind_clamps(node.outputs[0])] = node

    def _worthwhile(self) -> frozenset[ir.Node]:
        """Those of the chosen that can run in integers, and whose result goes on in integers."""
        kept = set(self.chosen) & set(self.ends.values())
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
        return value is not None and (
            code_root(value) in self.quantizers or code_root(value) in self.ends
        )

    def _is_covered(self, value: ir.Value) -> bool:
        """Whether a quantizer stands behind a value, or an output of the graph."""
        while value not in self.quantizers:
            uses = tuple(value.uses())
            if value.is_graph_output() or not uses:
                return True
            if len(uses) > 1 or not moves_codes_fast(uses[0].node):
                return False
            read = [output for output in uses[0].node.outputs if output.uses()]
            if len(read) > 1:
                return False
            value = read[0] if read else uses[0].node.outputs[0]
        return True


def _could_run_in_integers(node: ir.Node) -> bool:
    if not runs_on_codes(node):
        return False
    return all(
        value is not None and value.const_value is None and value.dtype is ir.DataType.FLOAT
        for value in node.inputs
    )


def _is_integer_mac(node: ir.Node, operands: set[ir.Value]) -> bool:
    """Whether a node has an integer kernel, and what it multiplies is on grids for it."""
    op = mac_spec(node)
    if op is None or not op.integer_kernel(node):
        return False
    return all(node.inputs[index] in operands for index in op.operands)


def needs_quantized_output(node: ir.Node | None) -> bool:
    """Whether an integer kernel can't give floats, as those of matrix products can."""
    return node is not None and (mac_spec(node) is None or standard_op(node) == "Conv")


def code_root(value: ir.Value) -> ir.Value:
    """The value whose codes operators moved to make a value."""
    node = value.producer()
    while node is not None and moves_codes_fast(node):
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    return value


def _behind_clamps(value: ir.Value) -> ir.Value:
    """The value behind the clamps that alone read a value."""
    reader = only_reader(value)
    while reader is not None and is_clamp(reader):
        value = reader.outputs[0]
        reader = only_reader(value)
    return value
