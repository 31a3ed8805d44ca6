"""Where the quantizer of an activation is written: as near to its producer as codes can flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.gating.movers import Mover, movers_above
from onnx_cgmq.graph.operators import is_clamp
from onnx_cgmq.graph.uses import has_one_reader


@dataclass(frozen=True)
class CodePath:
    """What lies between an activation and where its QuantizeLinear is written.

    Attributes:
        source: The value that QuantizeLinear reads.
        clamps: Relu and Clip nodes behind it that become limits of the codes, nearest to the
            activation first.
        movers: Operators behind these that move codes in place of floats, nearest first.
    """

    source: ir.Value
    clamps: tuple[ir.Node, ...]
    movers: tuple[Mover, ...]

    @property
    def factor(self) -> float:
        """What the movers multiply by together."""
        return math.prod(1 if mover.factor is None else mover.factor for mover in self.movers)

    @classmethod
    def above(cls, x: ir.Value) -> CodePath:
        """The path of an activation's codes; each node on it serves nothing but this quantizer."""
        movers = movers_above(x)
        value = movers[-1].source if movers else x
        clamps = []
        node = value.producer()
        while node is not None and is_clamp(node) and has_one_reader(value):
            clamps.append(node)
            assert node.inputs[0] is not None
            value = node.inputs[0]
            node = value.producer()
        return cls(value, tuple(clamps), tuple(movers))
