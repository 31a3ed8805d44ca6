"""Finds the one stored tensor of a weight, even if operators read it transposed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import mac_spec, quantized_spec


def transposes_above(value: ir.Value) -> tuple[ir.Node, ...]:
    """Returns the Transpose nodes from which a value comes, nearest first."""
    found: list[ir.Node] = []
    node = value.producer()
    while node is not None and standard_op(node) == "Transpose" and node.inputs[0] is not None:
        found.append(node)
        node = node.inputs[0].producer()
    return tuple(found)


def stored_weight(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """Finds the constant that a value is a transposed view of.

    Returns:
        The constant, and the Transpose nodes between it and ``value``, nearest to ``value`` first.
        If ``value`` does not come from a constant so, ``value`` itself and no nodes.
    """
    path = transposes_above(value)
    source = path[-1].inputs[0] if path else None
    if source is None or source.const_value is None:
        return value, ()
    return source, path


def transposed_views(
    value: ir.Value,
) -> Iterator[tuple[ir.Value, tuple[ir.Node, ...]]]:
    """Lists a value and all values that are transposed views of it.

    Yields:
        Each view with the Transpose nodes between the value and it, nearest to the view first.
    """
    yield value, ()
    for node in dict.fromkeys(use.node for use in value.uses()):
        if standard_op(node) == "Transpose":
            for view, path in transposed_views(node.outputs[0]):
                yield view, (*path, node)


def permutation(path: tuple[ir.Node, ...], rank: int) -> tuple[int, ...]:
    """Returns, for every axis of a transposed value, the axis of its source.

    Args:
        path: The Transpose nodes between the two, nearest to the value first.
        rank: Number of axes.
    """
    axes = tuple(range(rank))
    for node in path:
        attribute = node.attributes.get("perm")
        perm = tuple(reversed(range(rank))) if attribute is None else tuple(attribute.as_ints())
        axes = tuple(perm[axis] for axis in axes)
    return axes


def constants_above(value: ir.Value) -> tuple[frozenset[ir.Value], bool]:
    """Finds the constants from which a value is computed.

    Returns:
        The constants, and whether the value depends on nothing else.
    """
    found, above, seen, alone = set(), [value], {value}, True
    while above:
        value = above.pop()
        node = value.producer()
        if value.const_value is not None:
            found.add(value)
        elif node is None:
            alone = False
        for read in node.inputs if node is not None else ():
            if read is not None and read not in seen:
                seen.add(read)
                above.append(read)
    return frozenset(found), alone


def constants_read(model: ir.Model) -> Iterator[ir.Value]:
    """Yields each weight, bias and embedding table that nodes read without a quantizer, once.

    In branches also the constants from which nodes compute one, as nothing is folded there.
    """
    found: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        spec = quantized_spec(node) or mac_spec(node)
        if spec is None:
            continue
        values = [stored_weight(value)[0] for _, value in spec.operand_values(node)]
        for value in (*values, spec.bias_value(node)):
            if value is not None and value.const_value is not None:
                found[value] = None
            elif value is not None and node.graph is not model.graph:
                constants, alone = constants_above(value)
                found.update(dict.fromkeys(constants if alone else ()))
    yield from found
