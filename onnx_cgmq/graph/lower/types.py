"""Types and shapes in the file: only those that readers can't infer."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.infer import infer_shapes


def drop_inferable_types(model: ir.Model) -> None:
    """Forgets the types and shapes of values between nodes that ONNX infers anew, in place.

    Inputs and outputs of graphs keep theirs. A size that was known stays known.
    """
    before = {
        value: (value.type, value.shape)
        for graph in model.graphs()
        for node in graph
        for value in node.outputs
        if not value.is_graph_output()
    }
    for value in before:
        value.type = value.shape = None
    infer_shapes(model)
    for value, (data_type, shape) in before.items():
        known = value.type == data_type and _says_as_much(value.shape, shape)
        value.type, value.shape = (None, None) if known else (data_type, shape)


def _says_as_much(found: ir.Shape | None, wanted: ir.Shape | None) -> bool:
    if wanted is None or found is None:
        return wanted is None
    return len(found) == len(wanted) and all(
        not isinstance(size, int) or size == other
        for size, other in zip(wanted, found, strict=True)
    )
