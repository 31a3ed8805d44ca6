"""Makes computed shapes of Reshape constant, if at most one of their sizes is open."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.emitter import Emitter
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.preparation.views import fixed_sizes


def fix_reshapes(model: ir.Model) -> None:
    """Gives every Reshape whose output shape has at most one open size a constant shape, in place.

    Exporters compute the batch size at run time (Shape, Gather, Concat), though Reshape can work
    out one open size itself. A constant shape saves these nodes. It also leaves the value with a
    single reader, which it needs to have to stay in integer codes.

    Args:
        model: A model with inferred shapes.
    """
    for graph in model.graphs():
        for node in list(graph):
            if standard_op(node) != "Reshape" or len(node.inputs) < 2 or node.inputs[1] is None:
                continue
            sizes = fixed_sizes(node.outputs[0])
            if node.inputs[1].const_value is None and sizes is not None:
                shape = Emitter(node, model.opset_imports[""]).constant(sizes, np.int64)
                node.replace_input_with(1, shape)
