"""Keeps Relu and Clip that stay floats from holding a product in floats.

onnxruntime takes Relu or Clip behind MatMul or Gemm for a part of it. Where a quantizer behind them
does their work that is right, and the writer leaves them out. Where floats go on, it makes one
float operator of both, and the product is no longer run in its integer kernel. Max and Min
compute the same, and are no part of anything.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import is_clamp
from onnx_cgmq.writing.node_writer import NodeWriter


def separate_clamps(graph: ir.Graph, products: set[ir.Node]) -> None:
    """Spells clamps right behind products that run in integers as Max and Min, in place.

    Args:
        graph: A written graph: clamps that quantizers do the work of are gone.
        products: The MatMul and Gemm nodes in it that are to run in integers.
    """
    for node in list(graph):
        product = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if product in products and is_clamp(node):
            _spell_out(node)


def _spell_out(clamp: ir.Node) -> None:
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
