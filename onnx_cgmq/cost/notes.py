"""What a user should know about the cost of a gated graph before it is learned."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_cgmq.graph.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.opspec import mac_spec
from onnx_cgmq.graph.sizes import Sizes

_SHOWN = 3


def cost_notes(gated: ir.Model) -> tuple[str, ...]:
    """Sentences on multiply-accumulates that stay float, and on sizes that are not known."""
    sizes = Sizes(gated)
    float_nodes, open_nodes = [], []
    for node in ir.traversal.RecursiveGraphIterator(gated.graph):
        spec = mac_spec(node)
        if spec is None:
            continue
        values = [value for _, value in spec.operand_values(node)]
        if not any(map(_is_quantized, values)):
            float_nodes.append(node)
        if any(None in (sizes.shape(value) or ()) for value in values):
            open_nodes.append(node)
    notes = []
    if float_nodes:
        notes.append(
            f"stay float, with operands of 32 bits, since they are inside of a subgraph or have no "
            f"quantized form: {_listing(float_nodes)}"
        )
    if open_nodes:
        notes.append(f"sizes that the data decide count as 1: {_listing(open_nodes)}")
    return tuple(notes)


def _is_quantized(value: ir.Value) -> bool:
    path = transposes_above(value)
    node = path[-1].inputs[0].producer() if path and path[-1].inputs[0] else value.producer()
    return node is not None and is_gated_quantizer(node)


def _listing(nodes: Sequence[ir.Node]) -> str:
    names = ", ".join(f"{node.name} ({node.op_type})" for node in nodes[:_SHOWN])
    more = len(nodes) - _SHOWN
    return f"{names} and {more} more" if more > 0 else names
