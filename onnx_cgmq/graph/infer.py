"""Infers shapes in time and memory that grow with the number of nodes, not the size of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from functools import cache
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.graph.files.protos import all_graphs
from onnx_cgmq.graph.stand_ins import stand_in_for_onnxruntime, stand_in_for_qonnx

_CONSTANTS_ARE_NO_INPUTS: Final = 4
"""The oldest IR version in which an initializer need not be an input of the graph as well."""

_MOST_LISTED: Final = 1 << 20
"""Elements of vectors that onnx may list, some 100 bytes for each."""

_LONGEST_SHAPE: Final = 1000
"""Elements of the longest vector whose values may be sizes."""

_ROUNDS: Final = 8
"""How often more is inferred from what is known; each round follows one more computed shape."""

_UNKNOWN: Final = "onnx_cgmq.unknown"
_NAMED_BY_ONNX: Final = "unk__"

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
        _merge(model.graph, _inferred(proto).graph)


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model with all shapes that onnx can infer.

    To follow the values of shapes through the graph, onnx lists every element of every vector that
    an operator of shape arithmetic reads: gigabytes for a Range of 2**36 behind a Cast. So where
    such vectors are long, or so unknown that they may be, their readers are left out of that.
    """
    known = _infer(proto, values=False)
    left_out = _read_long_vectors(known)
    if not left_out:
        return _infer(proto, values=True)
    for _ in range(_ROUNDS):
        followed = _infer(_without(left_out, proto, known), values=True)
        known = _infer(_with(left_out, proto, followed), values=False)
        _keep_names(known, followed)
        still = left_out & _read_long_vectors(known)
        if still == left_out:
            break
        left_out = still  # what is known by now is short after all
    return known


def _infer(proto: onnx.ModelProto, *, values: bool) -> onnx.ModelProto:
    """Runs onnx's inference, following the values of shapes or not; a new model."""
    found: onnx.ModelProto = onnx.shape_inference.infer_shapes(
        proto, check_type=True, data_prop=values
    )
    return found


def _without(
    places: Collection[int], proto: onnx.ModelProto, known: onnx.ModelProto
) -> onnx.ModelProto:
    """A model in which onnx knows some nodes only by what is known of their results."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    copied.opset_import.add(domain=_UNKNOWN, version=1)
    types = {info.name: info for graph in all_graphs(known.graph) for info in graph.value_info}
    place = 0
    for graph in all_graphs(copied.graph):
        declared = {info.name: info for info in graph.value_info}
        for node in graph.node:
            if place in places:
                node.domain = _UNKNOWN
                for name in node.output:
                    if name in types:
                        declared[name] = types[name]
            place += 1
        infos = list(declared.values())
        del graph.value_info[:]
        graph.value_info.extend(infos)
    return copied


def _with(
    places: Collection[int], proto: onnx.ModelProto, known: onnx.ModelProto
) -> onnx.ModelProto:
    """The model that :func:`_without` made, with its nodes as they were."""
    for place, (node, was) in enumerate(zip(_nodes(known), _nodes(proto), strict=True)):
        if place in places:
            node.domain = was.domain
    return known


def _keep_names(known: onnx.ModelProto, followed: onnx.ModelProto) -> None:
    """Takes sizes of one model where the other, in place, has only names that onnx made up."""
    shapes = {
        info.name: info.type.tensor_type.shape.dim
        for graph in all_graphs(followed.graph)
        for info in (*graph.value_info, *graph.output)
    }
    for graph in all_graphs(known.graph):
        for info in (*graph.value_info, *graph.output):
            dims, others = info.type.tensor_type.shape.dim, shapes.get(info.name, ())
            for dim, other in zip(dims, others if len(others) == len(dims) else (), strict=False):
                if not dim.HasField("dim_value"):
                    dim.CopyFrom(other)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in all_graphs(proto.graph):
        yield from graph.node


def _read_long_vectors(proto: onnx.ModelProto) -> frozenset[int]:
    """Places of nodes of shape arithmetic that read a vector which is, or may become, too long."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    lengths: dict[str, float] = {}
    for graph in all_graphs(proto.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            lengths[info.name] = _length(info.type.tensor_type)
        for tensor in graph.initializer:
            lengths[tensor.name] = math.prod(tensor.dims)
    reads = {
        place: max((lengths.get(name, math.inf) for name in node.input if name), default=0)
        for place, node in enumerate(_nodes(proto))
        if _follows_values(node.domain, node.op_type, opset)
    }
    listed = sum(length for length in reads.values() if length < math.inf)
    longest = _LONGEST_SHAPE if listed > _MOST_LISTED else _MOST_LISTED
    return frozenset(place for place, length in reads.items() if length > longest)


@cache
def _follows_values(domain: str, op_type: str, opset: int) -> bool:
    """Whether onnx follows the values of shapes through an operator."""
    if domain not in ("", "ai.onnx") or not onnx.defs.has(op_type, opset):
        return False
    return bool(onnx.defs.get_schema(op_type, opset).has_data_propagation_function)


def _length(tensor: onnx.TypeProto.Tensor) -> float:
    """Elements of a vector, infinite if unknown; 0 for tensors of more axes, which are not listed.

    A size that the graph names stays a name; those that onnx names may turn out to be numbers.
    """
    if not tensor.HasField("shape"):
        return math.inf
    if len(tensor.shape.dim) != 1:
        return 0
    (dim,) = tensor.shape.dim
    if dim.HasField("dim_value"):
        return float(dim.dim_value)
    named = dim.dim_param and not dim.dim_param.startswith(_NAMED_BY_ONNX)
    return 0 if named else math.inf


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
    """Gives an initializer the type and shape of its tensor, which a folded node only guessed."""
    if value.const_value is not None:
        value.type = value.type or ir.TensorType(value.const_value.dtype)
        value.shape = ir.Shape(value.const_value.shape.numpy())


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
