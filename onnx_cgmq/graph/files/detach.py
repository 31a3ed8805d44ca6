"""Models that share nothing with the caller's objects but the numbers in their tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final

import onnx
import onnx_ir as ir

_COPIED_UP_TO: Final = 1 << 12
"""Bytes up to which a tensor's message is copied whole, so that it is written again as it was."""


def detached(model: ir.Model) -> ir.Model:
    """A copy of a model: whatever is done to one of the two, the other stays as it is.

    Only the numbers of large tensors are shared, and nothing writes to those.
    """
    cloned = model.clone()
    detach(cloned)
    return cloned


def detach(model: ir.Model) -> None:
    """Gives a model tensors and types of its own, in place.

    ``onnx_ir`` shares both: a clone's with those of the original, and tensors with the message that
    a model was read from. To rename a value renames its tensor, and so the initializer in the
    caller's message.
    """
    for value in _values(model):
        if value.const_value is not None:
            value.const_value = _own(value.const_value)
        if value.type is not None:
            value.type = copy.deepcopy(value.type)
    for node in _nodes(model):
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                continue
            if attribute.type is ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, _own(attribute.as_tensor()))
            elif attribute.type is ir.AttributeType.TENSORS:
                tensors = [_own(tensor) for tensor in attribute.as_tensors()]
                node.attributes[name] = ir.AttrTensors(name, tensors)


def _own(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor under a name of its own."""
    notes = dict(tensor.metadata_props)
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=str(tensor.name),
            doc_string=tensor.doc_string,
            metadata_props=notes,
            base_dir=tensor.base_dir,
        )
    if isinstance(tensor, ir.StringTensor):
        return ir.StringTensor(
            tensor.string_data(),
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=notes,
        )
    if isinstance(tensor, ir.serde.TensorProtoTensor) and tensor.nbytes <= _COPIED_UP_TO:
        proto = onnx.TensorProto()
        proto.CopyFrom(tensor.raw)
        return ir.serde.TensorProtoTensor(proto)
    return ir.LazyTensor(
        tensor.raw if isinstance(tensor, ir.LazyTensor) and not tensor.cache else lambda: tensor,
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=notes,
    )


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in _graphs(model):
        yield from graph.inputs
        if isinstance(graph, ir.Graph):
            yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    for graph in _graphs(model):
        yield from graph


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield from model.graphs()
    for function in model.functions.values():
        yield function
        yield from function.subgraphs()
