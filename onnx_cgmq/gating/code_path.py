"""Finds the place where the QuantizeLinear of an activation is written.

It is written as far up as codes can take the place of floats, so that the nodes in between run on
integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.gating.movers import Mover, movers_above
from onnx_cgmq.graph.operators import is_clamp
from onnx_cgmq.graph.uses import only_element_reader


@dataclass(frozen=True)
class CodePath:
    """The nodes between an activation and the value that its QuantizeLinear reads.

    From top to bottom: source, clamps, movers, activation.

    Attributes:
        source: The value that QuantizeLinear reads.
        clamps: The clamps that read it, which become limits of the codes; the last one is first.
        movers: The movers behind the clamps, which read codes instead of floats; the last one,
            which makes the activation, is first.
    """

    source: ir.Value
    clamps: tuple[ir.Node, ...]
    movers: tuple[Mover, ...]

    @property
    def factor(self) -> float:
        """The product of all factors by which the movers multiply."""
        return math.prod(1 if mover.factor is None else mover.factor for mover in self.movers)

    @classmethod
    def above(cls, x: ir.Value) -> CodePath:
        """Finds the path above an activation ``x``.

        Every node on the path has one reader, so nothing else needs its float values. Nodes that
        only read a shape (Shape) do not count.
        """
        movers = movers_above(x)
        value = movers[-1].source if movers else x
        clamps = []
        node = value.producer()
        while node is not None and is_clamp(node) and only_element_reader(value):
            clamps.append(node)
            assert node.inputs[0] is not None
            value = node.inputs[0]
            node = value.producer()
        return cls(value, tuple(clamps), tuple(movers))
