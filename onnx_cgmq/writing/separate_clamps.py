"""Keeps onnxruntime from running a product in floats because of a Relu or Clip behind it.

onnxruntime fuses MatMul or Gemm with a Relu or Clip behind it into one float operator, so that the
product no longer runs in its integer kernel; and with one in between it makes no kernel of a packed
weight. (A clamp whose work a quantizer does is not written at all.) Max and Min compute the same,
and onnxruntime does not fuse them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import is_clamp
from onnx_cgmq.writing.node_writer import NodeWriter


def separate_clamps(graph: ir.Graph, products: set[ir.Node]) -> None:
    """Replaces clamps right behind products by Max and Min, in place.

    Args:
        graph: A written graph, without the clamps whose work quantizers do.
        products: The MatMul and Gemm nodes of the graph that are to run in integers, or
            with packed weights.
    """
    for node in list(graph):
        product = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if product in products and is_clamp(node):
            _replace(node)


def _replace(clamp: ir.Node) -> None:
    """Replaces one clamp by Max and Min."""
    source, output = clamp.inputs[0], clamp.outputs[0]
    assert source is not None
    assert clamp.graph is not None
    value, emit = source, NodeWriter(clamp, str(output.name))
    low: ir.Value | None
    high: ir.Value | None
    if standard_op(clamp) == "Relu":
        low, high = emit.constant("low", np.float32(0)), None
    else:
        low, high = (clamp.inputs[i] if len(clamp.inputs) > i else None for i in (1, 2))
    dtype = output.dtype or ir.DataType.FLOAT
    for op_type, limit in (("Max", low), ("Min", high)):
        if limit is not None:
            value = emit.node(op_type, [value, limit], op_type.lower(), dtype, output.shape)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    name = output.name
    clamp.graph.remove(clamp, safe=True)
    value.name = name
