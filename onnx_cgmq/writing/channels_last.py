"""Flattens images of one pixel with channels last, the order that integer convolutions use.

onnxruntime runs integer convolutions with channels last (NHWC), and transposes back to channels
first where that is no longer possible. Behind the last convolution it does so before the pooling,
and integer pooling with channels first takes ten times as long. A Transpose to channels last behind
the pooling, where one pixel is left, does not change the order of the elements. onnxruntime then
keeps channels last up to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import int_attribute, standard_op
from onnx_cgmq.writing.node_writer import NodeWriter

_CHANNELS_LAST: Final = (0, 2, 3, 1)


def flatten_channels_last(graph: ir.Graph) -> None:
    """Puts a Transpose before every node that flattens UINT8 images of one pixel, in place."""
    for node in list(graph):
        codes = node.inputs[0] if node.inputs else None
        if codes is None or not _is_one_pixel(codes) or not _flattens(node):
            continue
        emit = NodeWriter(node, str(codes.name))
        assert codes.shape is not None
        assert codes.dtype is not None
        shape = ir.Shape([codes.shape[axis] for axis in _CHANNELS_LAST])
        perm = {"perm": _CHANNELS_LAST}
        last = emit.node("Transpose", [codes], f"{node.name}.last", codes.dtype, shape, perm)
        node.replace_input_with(0, last)
        if standard_op(node) == "Squeeze":
            axes = emit.constant(f"{node.name}.axes", np.array([1, 2], np.int64))
            node.replace_input_with(1, axes)


def _is_one_pixel(value: ir.Value) -> bool:
    """Says whether a value has the shape ``[N, C, 1, 1]``, is UINT8 and is no constant."""
    if value.dtype is not ir.DataType.UINT8 or value.const_value is not None:
        return False
    shape = value.shape
    return shape is not None and len(shape) == 4 and tuple(shape.dims[2:]) == (1, 1)


def _flattens(node: ir.Node) -> bool:
    """Says whether a node makes ``[N, C]`` of ``[N, C, 1, 1]``."""
    op = standard_op(node)
    if op == "Flatten":
        return int_attribute(node, "axis", 1) == 1
    if op not in ("Reshape", "Squeeze") or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    given = node.inputs[1].const_value
    if given is None:
        return False
    numbers = given.numpy().tolist()
    if op == "Squeeze":
        return {axis % 4 for axis in numbers} == {2, 3}
    return len(numbers) == 2 and numbers[1] != 0
