"""Follows channels through nodes that do the same to them whatever positive factors they have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import is_view, moves_codes

_ELEMENTWISE: Final = ("Identity", "LeakyRelu", "PRelu", "Relu")
_POOLS: Final = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")


@dataclass(frozen=True)
class Channels:
    """Where the channels of a value lie.

    Attributes:
        axis: The axis along which they lie, counted from 0.
        count: Number of channels.
        repeat: How many entries in a row along the axis belong to one channel: more than 1 where
            pixels were flattened.
    """

    axis: int
    count: int
    repeat: int = 1

    @property
    def size(self) -> int:
        """Number of entries along the axis."""
        return self.count * self.repeat


def channels_behind(node: ir.Node, channels: Channels) -> Channels | None:
    """Finds the channels of the first input of a node in its first output.

    Args:
        node: The node.
        channels: The channels of the input.

    Returns:
        The channels of the output if a positive factor for each channel of the input gives just
        that factor at each channel of the output; else ``None``.
    """
    op, (source, result) = standard_op(node), (node.inputs[0], node.outputs[0])
    if source is None or source.shape is None or result.shape is None:
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    if op in _ELEMENTWISE or (op == "Clip" and _is_relu(node)):
        return channels if len(source.shape) == len(result.shape) else None
    if op == "Transpose":
        perm = node.attributes.get("perm")
        axes = range(len(source.shape))[::-1] if perm is None else perm.as_ints()
        return replace(channels, axis=list(axes).index(channels.axis))
    if op in _POOLS:
        return channels if channels.axis == 1 else None
    if op == "Pad":
        return channels if moves_codes(node) and _pads_nothing_at(node, channels.axis) else None
    if op == "Resize":
        same = source.shape[channels.axis] == result.shape[channels.axis] == channels.size
        return channels if moves_codes(node) and same else None
    return _behind_view(source.shape, result.shape, channels) if is_view(node) else None


def _is_relu(clip: ir.Node) -> bool:
    """Says whether a Clip cuts off what is below 0, and nothing else."""
    low, high = (clip.inputs[i] if i < len(clip.inputs) else None for i in (1, 2))
    limit = constant_value(low)
    return high is None and limit is not None and not np.any(limit)


def _pads_nothing_at(pad: ir.Node, axis: int) -> bool:
    """Says whether a Pad is known to leave an axis as it is."""
    pads = constant_value(pad.inputs[1]) if len(pad.inputs) > 1 else None
    if pads is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return False
    return not pads.reshape(2, -1)[:, axis].any()


def _behind_view(source: ir.Shape, result: ir.Shape, channels: Channels) -> Channels | None:
    """Finds the channels behind a node that leaves all elements in their order."""
    behind = _product(source, channels.axis + 1)
    if behind is None:
        return None
    block = channels.repeat * behind  # elements of one channel that follow each other
    for axis, size in enumerate(result):
        behind = _product(result, axis + 1)
        if behind is None or not isinstance(size, int):
            continue
        if size * behind == channels.count * block and block % behind == 0:
            return Channels(axis, channels.count, block // behind)
    return None


def _product(shape: ir.Shape, start: int) -> int | None:
    """Product of the sizes of a shape from an axis on; ``None`` if one of them is open."""
    sizes = [size for size in shape[start:] if isinstance(size, int)]
    return int(np.prod(sizes, dtype=np.int64)) if len(sizes) == len(shape) - start else None
