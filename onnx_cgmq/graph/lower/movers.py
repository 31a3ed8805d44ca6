"""Operators that only move values, reading integer codes instead of floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.gating.integer_path import moves_integers
from onnx_cgmq.graph.opspec import standard_op

_SELECTORS: Final = frozenset({"Gather", "Slice", "Split"})
"""Operators whose result is smaller than what they read."""


@dataclass(frozen=True)
class Mover:
    """An operator on the way of codes.

    Attributes:
        node: It.
        output: That output of it which the codes take.
    """

    node: ir.Node
    output: ir.Value

    @property
    def source(self) -> ir.Value:
        """What it moves."""
        value = self.node.inputs[0]
        assert value is not None
        return value


def movers_above(x: ir.Value) -> list[Mover]:
    """Operators above ``x``, nearest first, that may move its codes in its stead.

    Each must serve nothing but this quantizer: whoever else reads it wants the float value. One
    that selects a part of what others read too is left out, since less is quantized behind it.
    """
    path: list[Mover] = []
    value = x
    while True:
        node = value.producer()
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if node is None or not alone or not moves_integers(node) or _has_other_outputs(node, value):
            break
        path.append(Mover(node, value))
        value = path[-1].source
    while path and standard_op(path[-1].node) in _SELECTORS and len(path[-1].source.uses()) > 1:
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
