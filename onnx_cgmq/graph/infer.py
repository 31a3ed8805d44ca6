"""Shape inference in time and memory linear in the nodes, whatever the size of the weights."""

from __future__ import annotations

import contextlib
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.graph.stand_ins import stand_in_for_onnxruntime, stand_in_for_qonnx

_CONSTANTS_ARE_NO_INPUTS: Final = 4
"""The oldest IR version in which an initializer need not be an input of the graph as well."""

_LARGE: Final = 1000
"""Bytes above which inference need not see the values of an initializer: the shapes, axes and pads
that it has to read are smaller. Our choice."""


def infer_shapes(model: ir.Model) -> None:
    """Sets the shapes and types that onnx can infer, in place and in subgraphs too.

    Nothing changes if the graph contradicts itself. The pass of ``onnx_ir`` gives the same shapes,
    but its time grows with the square of the number of initializers.
    """
    with contextlib.suppress(Exception):  # onnx raises many kinds of errors: shapes stay unknown
        proto = skeleton(model)
        stand_in_for_onnxruntime(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, data_prop=True)
        _merge(model.graph, inferred.graph)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Returns a proto without large tensors, for those parts of onnx that are written in C++.

    Args:
        model: The model; it is left as it was.

    Returns:
        A proto with all nodes of the model. Quantizers of QONNX are Identity nodes there, and an
        initializer of more than a kilobyte is an input without a value.
    """
    graph = model.graph
    inputs, initializers = list(graph.inputs), list(graph.initializers.values())
    known = set(inputs)
    for value in initializers:
        _describe(value)
    large = [v for v in initializers if v.const_value is None or v.const_value.nbytes > _LARGE]
    try:
        graph.inputs.extend([value for value in large if value not in known])
        for value in large:
            del graph.initializers[str(value.name)]
        proto = ir.serde.serialize_model(model)
        proto.ir_version = max(proto.ir_version, _CONSTANTS_ARE_NO_INPUTS)
        stand_in_for_qonnx(proto)
        return proto
    finally:
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        graph.initializers.clear()  # all are added again, so that they keep their order
        for value in initializers:
            graph.initializers.add(value)


def _describe(value: ir.Value) -> None:
    """Gives an initializer the type and shape of its tensor."""
    if value.const_value is not None:
        value.type = value.type or ir.TensorType(value.const_value.dtype)
        value.shape = value.shape or ir.Shape(value.const_value.shape.numpy())


def _merge(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    inferred = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            if value.name in inferred:
                _set_type(value, inferred[value.name])
        for attribute in node_proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _merge(node.attributes[attribute.name].as_graph(), attribute.g)


def _set_type(value: ir.Value, proto: onnx.TypeProto) -> None:
    found = ir.serde.deserialize_type_proto_for_type(proto)
    if found is not None and found.dtype is not ir.DataType.UNDEFINED:
        value.type = found
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is not None:
        value.shape = shape
