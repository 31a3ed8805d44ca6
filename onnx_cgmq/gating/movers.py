"""Movers: operators that only move or select values, so that they can read codes instead of floats.

An operator that multiplies by one positive number (the scaling of attention) counts as a mover too:
the codes stay the same, and their step is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.graph.affine import affine_of
from onnx_cgmq.graph.emitter import rank_of
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import moves_codes_fast, selects
from onnx_cgmq.graph.uses import element_uses, only_element_reader


@dataclass(frozen=True)
class Mover:
    """A node that can read codes instead of floats.

    Attributes:
        node: The node itself.
        source: The value that the node moves.
        output: The output of the node that is to be quantized.
        factor: The number by which the node multiplies, or ``None`` if it only moves values.
    """

    node: ir.Node
    source: ir.Value
    output: ir.Value
    factor: float | None = None

    @classmethod
    def of(cls, node: ir.Node, output: ir.Value) -> Mover | None:
        """Describes a node as a mover; returns ``None`` if it does more than move or scale."""
        if moves_codes_fast(node):
            assert node.inputs[0] is not None
            return cls(node, node.inputs[0], output)
        affine = affine_of(node)
        rank = rank_of(None if affine is None else affine.source)
        if affine is None or rank is None or affine.scale.ndim > rank or affine.shift.any():
            return None
        factor = float(affine.scale.reshape(-1)[0])
        single = affine.scale.size == 1 and factor > 0
        return cls(node, affine.source, output, factor) if single else None


def movers_above(x: ir.Value) -> list[Mover]:
    """Finds the movers above ``x`` that can read the codes of ``x`` instead of floats.

    The value that each of them makes must have one reader, because any other reader would need the
    float value. If the topmost movers select parts of a value that others read too (Slice), they
    are left out: fewer elements are quantized behind them than above them.

    Returns:
        The movers, the nearest to ``x`` first.
    """
    path: list[Mover] = []
    value = x
    while True:
        node = value.producer()
        if node is None or not only_element_reader(value) or _has_other_outputs(node, value):
            break
        mover = Mover.of(node, value)
        if mover is None:
            break
        path.append(mover)
        value = mover.source
    while path and selects(path[-1].node) and len(element_uses(path[-1].source)) > 1:
        path.pop()
    return path


def _has_other_outputs(node: ir.Node, value: ir.Value) -> bool:
    """Says whether anything reads an output of a node other than ``value``."""
    others = [output for output in node.outputs if output is not value]
    return any(output.uses() or output.is_graph_output() for output in others)


def read_codes(mover: ir.Node, codes: ir.Value, zero_point: ir.Value) -> None:
    """Makes a mover read codes instead of floats, in place.

    Its outputs get the type of the codes. Pad fills in the zero point instead of 0.

    Args:
        mover: The node.
        codes: The codes that it is to read.
        zero_point: The zero point of the codes.
    """
    mover.replace_input_with(0, codes)
    if standard_op(mover) == "Pad":
        mover.resize_inputs(max(3, len(mover.inputs)))
        mover.replace_input_with(2, zero_point)
    for output in mover.outputs:
        output.type = ir.TensorType(codes.dtype or ir.DataType.UINT8)
