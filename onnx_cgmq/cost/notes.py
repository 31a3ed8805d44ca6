"""Notes on cost and kernels of a gated model, which a user should read before training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from onnx_cgmq.cost.macs import has_open_size
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.predicted_kernels import Kernel, narrowest_widths, predict_kernels
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.ort.sizes import Sizes

_SHOWN = 3


def cost_notes(gated: ir.Model, *, kernels: bool = False) -> tuple[str, ...]:
    """Writes notes on MAC nodes that stay float, and on sizes that are not known.

    Args:
        gated: The gated model.
        kernels: Whether to write a note, too, on the nodes that onnxruntime will run in floats
            whatever widths are learned.
    """
    sizes = Sizes(gated)
    float_nodes, open_nodes = [], []
    for node in ir.traversal.RecursiveGraphIterator(gated.graph):
        spec = mac_spec(node)
        if spec is None:
            continue
        values = [value for _, value in spec.operand_values(node)]
        if not any(map(_is_quantized, values)):
            float_nodes.append(node)
        if has_open_size(node, sizes):
            open_nodes.append(node)
    notes = []
    if float_nodes:
        notes.append(
            "these nodes stay float, with operands of 32 bits, because they are inside a subgraph "
            f"or have no quantized form: {_listing(map(_named, float_nodes))}"
        )
    reasons = _float_kernels(gated, float_nodes) if kernels else []
    if reasons:
        notes.append(
            "onnxruntime will run these nodes in floats whatever widths are learned: "
            f"{_listing(reasons, '; ')}"
        )
    if open_nodes:
        notes.append(
            "these nodes have sizes that only the data decide, which count as 1: "
            f"{_listing(map(_named, open_nodes))}"
        )
    return tuple(notes)


def _float_kernels(gated: ir.Model, known: Sequence[ir.Node]) -> list[str]:
    """Lists the MAC nodes that have float kernels whatever is learned, with the reasons.

    Args:
        gated: The gated model.
        known: Nodes that another note is about.
    """
    choices = predict_kernels(gated, narrowest_widths(gated))
    return [
        f"{_named(node)}, because {choice.reason}"
        for node, choice in choices.items()
        if choice.kernel is Kernel.FLOAT and mac_spec(node) is not None and node not in known
    ]


def _is_quantized(value: ir.Value) -> bool:
    """Says whether an operand comes from a gated quantizer, perhaps through Transpose nodes."""
    path = transposes_above(value)
    node = path[-1].inputs[0].producer() if path and path[-1].inputs[0] else value.producer()
    return node is not None and is_gated_quantizer(node)


def _named(node: ir.Node) -> str:
    return f"{node.name} ({node.op_type})"


def _listing(items: Iterable[str], separator: str = ", ") -> str:
    """Joins the first items, and says how many more there are."""
    shown = list(items)
    more = len(shown) - _SHOWN
    text = separator.join(shown[:_SHOWN])
    return f"{text} and {more} more" if more > 0 else text
