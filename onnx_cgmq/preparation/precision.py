"""Changes the float type in which a model computes; its inputs and outputs keep their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from onnx_cgmq.errors import ModelError

HALF_TYPES: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

_TYPE_ATTRIBUTES: Final = frozenset(
    {"dtype", "output_datatype", "output_dtype", "softmax_precision", "stash_type", "to"}
)


def change_float_type(
    model: ir.Model, old: frozenset[ir.DataType] = HALF_TYPES, new: ir.DataType = ir.DataType.FLOAT
) -> bool:
    """Makes a model compute in another float type, in place and in subgraphs too.

    Inputs and outputs of the graph keep their types: Cast nodes are put behind and before them.
    The model computes the same values, except where the old type rounds or overflows.

    Args:
        model: A model without functions and without Constant nodes.
        old: The types to replace; by default the two of 16 bits.
        new: The type to compute in.

    Returns:
        Whether there was anything to change.

    Raises:
        ModelError: An input or output of the old types is not a tensor.
    """
    values = [value for graph in model.graphs() for value in _values(graph)]
    tensors = [value for value in values if value.const_value is not None]
    if not any(_type_of(value) in old for value in values):
        return False
    outer_types = {value: _type_of(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in outer_types:
        if outer_types[value] in old and not isinstance(value.type, ir.TensorType):
            raise ModelError(
                f"'{value.name}' is a {type(value.type).__name__} of {value.dtype}; only tensors "
                f"can be converted: export the model in {new.name}"
            )
    for value in tensors:
        value.const_value = _converted(value.const_value, old, new)
    for value in values:
        if value.type is not None and value.dtype in old:
            value.dtype = new
    for graph in model.graphs():
        for node in graph:
            _change_attributes(node, old, new)
    for value in list(model.graph.inputs):
        _cast_input(model.graph, value, outer_types[value], new)
    for index, value in enumerate(model.graph.outputs):
        dtype = outer_types[value]
        if dtype is not None and dtype in old and not value.is_graph_input():
            model.graph.outputs[index] = _cast_output(model.graph, value, dtype)
    return True


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _type_of(value: ir.Value) -> ir.DataType | None:
    return value.dtype if value.const_value is None else value.const_value.dtype


def _converted(
    tensor: ir.TensorProtocol | None, old: frozenset[ir.DataType], new: ir.DataType
) -> ir.TensorProtocol | None:
    if tensor is None or tensor.dtype not in old:
        return tensor
    return ir.tensor(tensor.numpy().astype(new.numpy()), name=tensor.name)


def _change_attributes(node: ir.Node, old: frozenset[ir.DataType], new: ir.DataType) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type is ir.AttributeType.INT and name in _TYPE_ATTRIBUTES:
            if attribute.as_int() in old:
                node.attributes[name] = ir.AttrInt64(name, new.value)
        elif attribute.type is ir.AttributeType.TENSOR:
            tensor = _converted(attribute.as_tensor(), old, new)
            assert tensor is not None
            node.attributes[name] = ir.AttrTensor(name, tensor)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype.value}, name=f"{value.name}.cast")
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    return node


def _cast_input(
    graph: ir.Graph, value: ir.Value, old: ir.DataType | None, new: ir.DataType
) -> None:
    if value.dtype is old or old is None:
        return
    value.dtype = old
    readers = list(value.uses())
    cast = _cast(value, new)
    cast.outputs[0].name = f"{value.name}.{new.name.lower()}"
    for node, index in readers:
        node.replace_input_with(index, cast.outputs[0])
    first = next(iter(graph), None)
    if first is None:
        graph.append(cast)
    else:
        graph.insert_before(first, cast)


def _cast_output(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    cast = _cast(value, dtype)
    cast.outputs[0].name = value.name
    value.name = f"{value.name}.computed"
    graph.append(cast)
    return cast.outputs[0]
