"""Says which convolutions of images are written with a channel of zeros more.

onnxruntime has a fast integer kernel for convolutions whose input channels come in fours and whose
output channels come in eights. Any other convolution first copies the window of every pixel, which
takes longer than its products. Images have three channels. With a fourth one of zeros, the first
convolution of a network takes a half to three quarters of the time (as measured in
docs/benchmarks/image_channels.md), and computes the same.
"""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.graph.nodes import int_attribute, standard_op

_INPUTS_AT_ONCE: Final = 4
_OUTPUTS_AT_ONCE: Final = 8
_MOST_TAPS: Final = 49
"""Places of the largest kernel that gains; from 8 x 8 on, the other way to multiply is faster."""


def lacks_a_channel(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Says whether a node of a gated graph is written with a channel of zeros more.

    It is a Conv of a quantized image that is an input of the model. Nothing else reads the
    quantized image or the quantized weight. A convolution further down gains nothing: there the
    image has its channels last, and a channel more would mean to copy it pixel by pixel.

    Args:
        node: A node that is to run in integers.
        shape: The shape of its weight, as the node reads it.
    """
    if standard_op(node) != "Conv" or len(shape) != 4 or int_attribute(node, "group", 1) != 1:
        return False
    outputs, inputs, *kernel = shape
    if inputs % _INPUTS_AT_ONCE != _INPUTS_AT_ONCE - 1 or outputs % _OUTPUTS_AT_ONCE:
        return False
    if not 1 < math.prod(kernel) <= _MOST_TAPS:
        return False
    image, weight = (_quantizer_for_one(value) for value in node.inputs[:2])
    source = image.inputs[0] if image is not None else None
    return weight is not None and source is not None and source.is_graph_input()


def _quantizer_for_one(value: ir.Value | None) -> ir.Node | None:
    """Returns the gated quantizer that makes a value which one node alone reads."""
    node = value.producer() if value is not None else None
    if value is None or node is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return node if is_gated_quantizer(node) else None
