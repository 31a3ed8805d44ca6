"""Operators that only move values, reading integer codes instead of floats.

One that multiplies by a number (the scaling of attention) counts as well: codes stay what they are,
on another scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.graph.affine import affine_of
from onnx_cgmq.graph.emitter import rank_of
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import moves_codes_fast, selects
from onnx_cgmq.graph.uses import has_one_reader


@dataclass(frozen=True)
class Mover:
    """An operator on the way of codes.

    Attributes:
        node: It.
        source: What it moves.
        output: That output of it which the codes take.
        factor: What it multiplies by, ``None`` if it moves values only.
    """

    node: ir.Node
    source: ir.Value
    output: ir.Value
    factor: float | None = None

    @classmethod
    def of(cls, node: ir.Node, output: ir.Value) -> Mover | None:
        """A node on the way to one of its outputs, ``None`` if it does anything else."""
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
    """Operators above ``x``, nearest first, that may move its codes in its stead.

    Each must serve nothing but this quantizer: whoever else reads it wants the float value. One
    that selects a part of what others read too is left out, since less is quantized behind it.
    """
    path: list[Mover] = []
    value = x
    while True:
        node = value.producer()
        if node is None or not has_one_reader(value) or _has_other_outputs(node, value):
            break
        mover = Mover.of(node, value)
        if mover is None:
            break
        path.append(mover)
        value = mover.source
    while path and selects(path[-1].node) and len(path[-1].source.uses()) > 1:
        path.pop()
    return path


def _has_other_outputs(node: ir.Node, value: ir.Value) -> bool:
    others = [output for output in node.outputs if output is not value]
    return any(output.uses() or output.is_graph_output() for output in others)


def read_codes(mover: ir.Node, codes: ir.Value, zero_point: ir.Value) -> None:
    """Lets a mover read codes, and give them: what Pad fills in is their zero point then."""
    mover.replace_input_with(0, codes)
    if standard_op(mover) == "Pad":
        mover.resize_inputs(max(3, len(mover.inputs)))
        mover.replace_input_with(2, zero_point)
    for output in mover.outputs:
        output.type = ir.TensorType(codes.dtype or ir.DataType.UINT8)
