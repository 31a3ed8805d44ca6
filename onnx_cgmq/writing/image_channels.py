"""Gives images a channel of zeros more, with which onnxruntime convolves them faster.

:mod:`~onnx_cgmq.gating.image_channels` says why, and which convolutions gain by it. A ``Pad`` of
codes adds the channel to the image, and one to the weight. onnxruntime folds that of the weight
when it loads the file, so the file still holds no more than the weight itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.writing.node_writer import NodeWriter

_ONE_MORE: Final = (0, 0, 0, 0, 0, 1, 0, 0)
"""The ``pads`` of four axes that add one entry behind the others of axis 1."""


def add_image_channels(graph: ir.Graph, convolutions: Collection[ir.Node]) -> None:
    """Adds a channel of zeros to what some convolutions read, in place.

    Args:
        graph: A written graph.
        convolutions: The nodes of the graph for which
            :func:`~onnx_cgmq.gating.image_channels.lacks_a_channel` held before it was written.
            Their weights are INT8, as the fast kernel wants them.
    """
    for conv in [node for node in graph if node in convolutions]:
        image, weight = (_dequantize(value) for value in conv.inputs[:2])
        codes, _, zero_point = image.inputs
        weight_codes = weight.inputs[0]
        assert codes is not None
        assert zero_point is not None
        assert weight_codes is not None
        assert weight_codes.shape is not None
        channels = weight_codes.shape.numpy()[1] + 1  # the image may leave their number open
        pads = NodeWriter(conv, str(conv.name)).constant("one_more", np.array(_ONE_MORE, np.int64))
        _pad(image, [codes, pads, zero_point], channels)
        _pad(weight, [weight_codes, pads], channels)


def _dequantize(value: ir.Value | None) -> ir.Node:
    """Returns the DequantizeLinear that makes an operand of an integer kernel."""
    node = value.producer() if value is not None else None
    assert node is not None
    return node


def _pad(dequantize: ir.Node, inputs: Sequence[ir.Value], channels: int) -> None:
    """Makes a DequantizeLinear read its codes with a channel more, ``channels`` in all."""
    codes, values = inputs[0], dequantize.outputs[0]
    assert codes.dtype is not None
    if codes.shape is not None:
        values.shape = ir.Shape([codes.shape[0], channels, *codes.shape[2:]])
    emit = NodeWriter(dequantize, str(codes.name))
    dequantize.replace_input_with(0, emit.node("Pad", inputs, "padded", codes.dtype, values.shape))
