"""Removes channels of zeros that a file adds to an image and its weight only for a fast kernel.

The form ``ort`` writes them (:mod:`~onnx_cgmq.writing.image_channels`). Their products are all 0,
and the file holds no weights for them, so they are neither counted nor reported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import int_attribute, standard_op, text_attribute


def remove_zero_channels(model: ir.Model) -> None:
    """Makes each Conv that reads zeros in added channels of both operands read neither, in place.

    Both operands must come from DequantizeLinear of a Pad of codes, which adds the same number of
    channels, and only those, filled with the code that stands for 0. The Conv then computes the
    same without them. No other node may read the operands.
    """
    for node in model.graph.all_nodes():
        if standard_op(node) != "Conv" or int_attribute(node, "group", 1) != 1:
            continue
        image, weight = (_with_zeros(value) for value in node.inputs[:2])
        if image is not None and weight is not None and image.added == weight.added:
            for operand in (image, weight):
                operand.dequantize.replace_input_with(0, operand.codes)


class _WithZeros(NamedTuple):
    """An operand with channels of zeros behind its own."""

    dequantize: ir.Node
    codes: ir.Value | None
    """What DequantizeLinear would read without the zeros."""
    added: int


def _with_zeros(value: ir.Value | None) -> _WithZeros | None:
    """Finds the zeros that a Pad of codes adds to an operand; ``None`` if it adds none."""
    dequantize = value.producer() if value is not None else None
    if value is None or dequantize is None or standard_op(dequantize) != "DequantizeLinear":
        return None
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    codes, scale = dequantize.inputs[:2]
    pad = codes.producer() if codes is not None else None
    if (
        pad is None
        or standard_op(pad) != "Pad"
        or text_attribute(pad, "mode", "constant") != "constant"
    ):
        return None
    steps = constant_value(scale)
    if steps is None or (steps.size > 1 and int_attribute(dequantize, "axis", 1) != 0):
        return None  # steps of the channels, zeros and all
    filled, zero_point = _constant(pad, 2), _constant(dequantize, 2)
    added = _added_channels(pad)
    if filled is None or zero_point is None or not (zero_point == filled).all() or not added:
        return None
    return _WithZeros(dequantize, pad.inputs[0], added)


def _added_channels(pad: ir.Node) -> int:
    """How many channels a Pad adds behind the others; 0 if it does anything else."""
    pads = _constant(pad, 1)
    if pads is None or pads.size < 4 or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return 0
    place = 1 + pads.size // 2
    return 0 if np.delete(pads, place).any() else max(0, int(pads[place]))


def _constant(node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    """Returns a constant input of a node, 0 where it is left out; ``None`` if it varies."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return np.zeros(()) if value is None else constant_value(value)
