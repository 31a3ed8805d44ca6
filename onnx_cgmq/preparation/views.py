"""Shortens chains of views and Transpose nodes.

Exporters write a node for every view of a tensor; attention exported from PyTorch has a dozen in
each layer.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.emitter import Emitter, replace
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import is_view


def merge_views(model: ir.Model) -> None:
    """Makes one Reshape of several views and one Transpose of two, in place.

    Nodes that do nothing are removed. Views whose result has more than one open size stay.

    Args:
        model: A model with inferred shapes.
    """
    for graph in model.graphs():
        for node in list(graph):
            op = standard_op(node)
            if is_view(node):
                _merge_views(node, Emitter(node, model.opset_imports[""]))
            elif op == "Transpose":
                _merge_transposes(node, Emitter(node, model.opset_imports[""]))


def fixed_sizes(value: ir.Value) -> list[int] | None:
    """Returns the shape of a value as Reshape takes it, with -1 for the one size that is open.

    It is ``None`` if more sizes are open, the rank is unknown, or a size is 0, which would mean
    "copy" to Reshape.
    """
    if value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    return sizes if sizes.count(-1) <= 1 and 0 not in sizes else None


def _merge_views(node: ir.Node, emit: Emitter) -> None:
    output, source = node.outputs[0], node.inputs[0]
    sizes = fixed_sizes(output)
    if source is None or sizes is None:
        return
    inner = source.producer()
    merged = inner is not None and inner.graph is node.graph and is_view(inner)
    if merged and inner is not None and inner.inputs[0] is not None:
        source = inner.inputs[0]
    # If all fixed sizes are equal and the open one is on the same axis, it is equal too.
    if fixed_sizes(source) == sizes and not output.is_graph_output():
        _remove_in_favour_of(node, source)
    elif merged:
        replace(node, [emit("Reshape", source, emit.constant(sizes, np.int64))])
    if merged and inner is not None and not inner.outputs[0].uses():
        _remove(inner)


def _merge_transposes(node: ir.Node, emit: Emitter) -> None:
    source = node.inputs[0]
    inner = None if source is None else source.producer()
    if source is None or inner is None or inner.graph is not node.graph:
        return
    if standard_op(inner) != "Transpose" or len(source.uses()) > 1 or source.is_graph_output():
        return
    first, second, start = _permutation(inner), _permutation(node), inner.inputs[0]
    if first is None or second is None or start is None:
        return
    perm = [first[axis] for axis in second]
    if perm != sorted(perm):
        replace(node, [emit("Transpose", start, attributes={"perm": perm})])
    elif not node.outputs[0].is_graph_output():
        _remove_in_favour_of(node, start)
    if not source.uses():
        _remove(inner)


def _remove(node: ir.Node) -> None:
    if node.graph is not None and not node.outputs[0].is_graph_output():
        node.graph.remove(node, safe=True)


def _remove_in_favour_of(node: ir.Node, value: ir.Value) -> None:
    """Removes a node; its readers read a value instead."""
    node.outputs[0].replace_all_uses_with(value)
    _remove(node)


def _permutation(node: ir.Node) -> list[int] | None:
    attribute = node.attributes.get("perm")
    if attribute is not None:
        return list(attribute.as_ints())
    shape = node.outputs[0].shape
    return None if shape is None else list(range(len(shape)))[::-1]
