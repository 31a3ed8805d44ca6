"""Leaves out types and shapes that readers of the file can infer."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.nodes import standard_op


def drop_inferable_types(model: ir.Model) -> None:
    """Removes types and shapes of values between nodes that ONNX can infer again, in place.

    Inputs and outputs of graphs keep their types and shapes. A value keeps its shape if inference
    would not find all sizes that are known.

    Summands before LayerNormalization keep their types and shapes too. onnxruntime fuses Add and
    LayerNormalization only if it knows that the summands have equal shapes, and equal names of open
    sizes can tell it so.
    """
    compared = _summands_before_normalization(model)
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
        follows = value.type == data_type and _is_as_specific(value.shape, shape)
        known = follows and value not in compared
        value.type, value.shape = (None, None) if known else (data_type, shape)


def _summands_before_normalization(model: ir.Model) -> set[ir.Value]:
    """Finds all values that are added up before a LayerNormalization, as an operator or not."""
    found: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        if standard_op(node) in ("LayerNormalization", "ReduceMean"):  # ReduceMean: spelled out
            pending = [node.inputs[0]]
            while pending:
                value = pending.pop()
                adds = value.producer() if value is not None else None
                if adds is not None and standard_op(adds) == "Add":
                    pending += [v for v in adds.inputs if v is not None and v not in found]
                    found.update(v for v in adds.inputs if v is not None)
    return found


def _is_as_specific(found: ir.Shape | None, wanted: ir.Shape | None) -> bool:
    """Says whether a shape that inference found has all the sizes that are wanted."""
    if wanted is None or found is None:
        return wanted is None
    return len(found) == len(wanted) and all(
        not isinstance(size, int) or size == other
        for size, other in zip(wanted, found, strict=True)
    )
