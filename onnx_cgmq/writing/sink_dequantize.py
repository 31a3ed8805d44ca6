"""Moves DequantizeLinear down behind movers, so that the movers run on integers."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.gating.movers import read_codes
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import moves_codes_fast


def sink_dequantization(graph: ir.Graph) -> None:
    """Rewrites ``DequantizeLinear -> mover`` as ``mover -> DequantizeLinear``, in place.

    The values stay the same to the last bit. Movers that onnxruntime does not fuse by itself (Slice
    and Pad before a residual Add) then run on codes too. This is done for activations only, and
    only if they have one scale. Movers in branches stay as they are.
    """
    pending = [node for node in graph if _dequantizes_activation(node)]
    while pending:
        dequantize = pending.pop()
        for reader, index in list(dequantize.outputs[0].uses()):
            in_branch = reader.graph is not graph
            if index == 0 and moves_codes_fast(reader) and not in_branch:
                pending += _move_below(dequantize, reader)


def _dequantizes_activation(node: ir.Node) -> bool:
    """Says whether a node is the DequantizeLinear of an activation with one scale."""
    if standard_op(node) != "DequantizeLinear":
        return False
    codes, scale = node.inputs[:2]
    single = scale is not None and scale.shape is not None and not scale.shape.dims
    return single and codes is not None and codes.const_value is None


def _move_below(dequantize: ir.Node, mover: ir.Node) -> list[ir.Node]:
    """Makes a mover read the codes, and dequantizes its outputs.

    Returns:
        The new DequantizeLinear nodes.
    """
    codes, scale, zero_point = dequantize.inputs
    assert dequantize.graph is not None
    assert codes is not None
    assert zero_point is not None
    read_codes(mover, codes, zero_point)
    made = []
    for output in mover.outputs:
        if not output.uses() and not output.is_graph_output():
            continue
        name = str(output.name)
        floats = ir.Value(name=name, type=dequantize.outputs[0].type, shape=output.shape)
        node = ir.node(
            "DequantizeLinear", [output, scale, zero_point], outputs=[floats], name=f"{name}.floats"
        )
        output.replace_all_uses_with(floats, replace_graph_outputs=True)
        node.replace_input_with(0, output)
        output.name = f"{name}.moved_codes"
        dequantize.graph.insert_after(mover, node)
        made.append(node)
    return made
