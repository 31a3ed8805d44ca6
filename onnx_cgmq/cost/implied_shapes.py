"""Shapes of operands that follow from an operator and its weights, whatever its input is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.nodes import int_attribute, operator_key

OpenShape = tuple[int | None, ...]

_CONVOLUTIONS: Final = {
    "Conv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "com.microsoft.FusedConv": 1,
}
"""Index of the weight ``[out, in / group, k...]``."""

_RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})


def with_implied_sizes(node: ir.Node, shapes: Sequence[OpenShape | None]) -> list[OpenShape | None]:
    """Fills in rank and channels of a node's input where its weight has them, and they are open.

    Args:
        node: A MAC node.
        shapes: Shapes of its inputs; ``None`` where the rank is unknown.
    """
    completed = list(shapes)
    implied = _implied_input(node, shapes)
    if implied is None:
        return completed
    known = shapes[0] or (None,) * len(implied)
    if len(known) == len(implied):
        completed[0] = tuple(
            other if size is None else size for size, other in zip(known, implied, strict=True)
        )
    return completed


def _implied_input(node: ir.Node, shapes: Sequence[OpenShape | None]) -> OpenShape | None:
    """What the weight of a node says of the shape of its input 0; ``None`` if nothing."""
    operator = operator_key(node)
    recurrent = operator in _RECURRENT
    index = 1 if recurrent else _CONVOLUTIONS.get(operator)
    weight = shapes[index] if index is not None and index < len(shapes) else None
    if weight is None or len(weight) < 3:
        return None
    if recurrent:  # [steps, samples, in], beside [directions, gates, in]
        return (None, None, weight[2])
    channels = None if weight[1] is None else weight[1] * int_attribute(node, "group", 1)
    return (None, channels, *[None] * (len(weight) - 2))
