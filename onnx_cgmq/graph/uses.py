"""Which nodes read a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnx_cgmq.graph.operators import Dependence, dependence_of


def has_one_reader(value: ir.Value) -> bool:
    """Says whether exactly one input of one node reads a value that is no output of the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_reader(value: ir.Value) -> ir.Node | None:
    """Returns the only node that reads a value.

    ``None`` means that several nodes or none read it, or that it is an output of the graph.
    """
    return next(iter(value.uses())).node if has_one_reader(value) else None


def shape_uses(value: ir.Value) -> Sequence[tuple[ir.Node, int]]:
    """Lists the uses of a value by nodes that read its shape only (Shape, Size)."""
    return [use for use in value.uses() if dependence_of(use.node) is Dependence.ON_SHAPES]


def element_uses(value: ir.Value) -> Sequence[tuple[ir.Node, int]]:
    """Lists the uses of a value by nodes that read its elements."""
    return [use for use in value.uses() if dependence_of(use.node) is not Dependence.ON_SHAPES]


def only_element_reader(value: ir.Value) -> ir.Node | None:
    """Returns the only node that reads the elements of a value, at only one of its inputs.

    ``None`` means that several nodes or none read them, or that the value is an output of the
    graph. Others may read the shape of the value: codes of the same shape do for these as well.
    """
    uses = element_uses(value)
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def values_read(node: ir.Node) -> Iterator[ir.Value]:
    """Yields the inputs of a node, and all values that its subgraphs read or return.

    Values that a subgraph computes itself are among these.
    """
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            yield from body.outputs
            for inner in body:
                yield from values_read(inner)
