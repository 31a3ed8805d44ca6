"""Makes pooling of means over all pixels, because ReduceMean has no integer kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.nodes import int_attribute, standard_op

_IMAGE_RANK = 4  # [batch, channel, height, width]


def pool_means(model: ir.Model) -> None:
    """Replaces ReduceMean over height and width by GlobalAveragePool, in place.

    A Squeeze follows if the mean drops these axes.
    """
    for graph in model.graphs():
        for node in list(graph):
            if standard_op(node) != "ReduceMean":
                continue
            why = _why_not(node)
            if why:
                decide(node.name, Verdict.LEFT, why)
            else:
                decide(
                    node.name, Verdict.REWRITTEN, "pooling has an integer kernel, a mean has none"
                )
                _pool(node)


def _why_not(node: ir.Node) -> str:
    """Says why a node is no mean over all pixels of float images; the text is empty if it is."""
    x = node.inputs[0]
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if x is None or x.shape is None or len(x.shape) != _IMAGE_RANK:
        return f"it does not read {_IMAGE_RANK} axes: batch, channel, height, width"
    if x.dtype is not ir.DataType.FLOAT:
        return "it does not read floats"
    if axes is None or axes.const_value is None:
        return "its axes are not constant"
    given = {int(axis) % _IMAGE_RANK for axis in np.atleast_1d(axes.const_value.numpy())}
    return "" if given == {2, 3} else "it is not over height and width"


def _pool(node: ir.Node) -> None:
    graph, x = node.graph, node.inputs[0]
    assert graph is not None
    assert x is not None
    assert x.shape is not None
    keeps = int_attribute(node, "keepdims", 1)
    node.attributes.clear()
    if keeps:
        node.op_type = "GlobalAveragePool"
        node.resize_inputs(1)
        return
    pooled = ir.Value(
        name=f"{node.outputs[0].name}.pooled",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([*x.shape[:2], 1, 1]),
    )
    pool = ir.node("GlobalAveragePool", [x], outputs=[pooled], name=f"{node.name}.pool")
    graph.insert_before(node, pool)
    node.op_type = "Squeeze"
    node.replace_input_with(0, pooled)
