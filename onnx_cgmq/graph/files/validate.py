"""Refuses invalid models that ``onnx.checker`` lets pass."""

from __future__ import annotations

import graphlib
import math
from collections.abc import Iterator
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.errors import ModelError

_MOST_NODES: Final = 20_000
"""Nodes to which functions may expand. Our choice: the inliner of onnx_ir takes quadratic time."""

_DEEPEST_CALL: Final = 100
"""How deep calls of functions may be nested. Our choice."""

_MOST_ELEMENTS: Final = 2**48
"""Elements that a tensor may have. Our choice: no computer holds that many."""


def refuse_maps(proto: onnx.ModelProto, label: str) -> None:
    """Refuses maps, which onnx_ir does not have: classifiers of scikit-learn end in them.

    Raises:
        ModelError: An input or output is a map or a sequence of maps.
    """
    graph = proto.graph
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            element, text = value.type, "a map"
            while element.HasField("sequence_type"):
                element, text = element.sequence_type.elem_type, "a sequence of maps"
            if element.HasField("map_type"):
                raise ModelError(
                    f"{label}: {kind} {value.name!r} is {text} from classes to values, not a "
                    "tensor; export the model without it (skl2onnx: zipmap=False)"
                )


def validate(model: ir.Model, label: str) -> None:
    """Checks functions, names, sizes and the data of tensors.

    Negative sizes become unknown, in place: some exporters write them for sizes that are open.

    Args:
        model: The model.
        label: What messages call the model.

    Raises:
        ModelError: Functions call each other in a circle, or expand to too many nodes; a tensor
            has more elements than any computer holds, or its data does not fit its shape and type;
            a name is not text.
    """
    _check_functions(model, label)
    for graph in model.graphs():
        _check_names(graph, label)
        for value in _values(graph):
            if value.shape is not None:
                _check_sizes(value, label)
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                _check_data(value.const_value, f"{label}: tensor '{name}'")
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type is ir.AttributeType.TENSOR and not attribute.is_ref():
                    where = f"{label}: attribute '{attribute.name}' of {node.op_type} '{node.name}'"
                    _check_data(attribute.value, where)


def _check_functions(model: ir.Model, label: str) -> None:
    calls = {
        identifier: [node.op_identifier() for node in function.all_nodes()]
        for identifier, function in model.functions.items()
    }
    callees = {
        identifier: {called for called in nodes if called in calls}
        for identifier, nodes in calls.items()
    }
    try:
        order = list(graphlib.TopologicalSorter(callees).static_order())
    except graphlib.CycleError as error:
        names = " -> ".join(name for _, name, _ in error.args[1])
        raise ModelError(
            f"{label} has functions that call each other in a circle: {names}; export it again"
        ) from error
    sizes: dict[ir.OperatorIdentifier, int] = {}
    depths: dict[ir.OperatorIdentifier, int] = {}
    for identifier in order:
        sizes[identifier] = sum(sizes.get(called, 1) for called in calls[identifier])
        depths[identifier] = 1 + max((depths[c] for c in callees[identifier]), default=0)
    total = sum(sizes.get(node.op_identifier(), 0) for node in model.graph.all_nodes())
    deepest = max(depths.values(), default=0)
    if total > _MOST_NODES or deepest > _DEEPEST_CALL:
        raise ModelError(
            f"{label} has functions that expand to {total:.3g} nodes, {deepest} calls deep; at "
            f"most {_MOST_NODES:,} nodes and {_DEEPEST_CALL} calls can be handled: split the model"
        )


def _check_names(graph: ir.Graph, label: str) -> None:
    """Refuses names that are no text; those arrive as bytes."""
    names: list[object] = [graph.name, *(value.name for value in _values(graph))]
    for node in graph:
        names += [node.name, node.op_type, node.domain]
    for name in names:
        if isinstance(name, bytes):
            raise ModelError(f"{label} has the name {name!r}, which is not text; export it again")


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _check_sizes(value: ir.Value, label: str) -> None:
    assert value.shape is not None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    if any(size is not None and size < 0 for size in sizes):
        value.shape = ir.Shape(
            [None if isinstance(size, int) and size < 0 else size for size in value.shape]
        )
    elements = math.prod(size for size in sizes if size)
    if abs(elements) > _MOST_ELEMENTS:
        raise ModelError(
            f"{label}: value '{value.name}' of shape {value.shape} has {abs(elements):.3g} "
            "elements; export the model again"
        )


def _check_data(tensor: ir.TensorProtocol, where: str) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        return
    try:
        tensor.numpy()
    except Exception as error:  # numpy and onnx_ir raise many kinds
        raise ModelError(
            f"{where} has data that does not fit its type and shape {tensor.shape} ({error}); "
            "export the model again"
        ) from error
