"""Gives short names to values between nodes, where their own would take too much of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count, product
from string import ascii_letters

import onnx_ir as ir

from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.operators import lookup_spec, mac_spec


def shorten_names(model: ir.Model, float_names: Collection[str], room: int) -> dict[str, str]:
    """Gives values short names, and nodes none, where names need more room than there is; in place.

    Names of the float model stay before others, and cheap ones before dear ones. Inputs and outputs
    of the model keep their names at no cost, and so do MAC nodes and lookups in embedding tables.
    Of the short names, values that are read most get the shortest. Nodes that the float model does
    not have lose their names.

    Args:
        model: The written model.
        float_names: The names of values and nodes in the float model.
        room: How many bytes longer the file may be than with short names only.

    Returns:
        The former names, by the new ones, of the values that MAC nodes and lookups read.
    """
    public = {str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)}
    values = [value for value in _values(model) if value.name not in public]
    operands = _operands(model)
    nodes = [node for node in model.graph.all_nodes() if node.name and _spec(node) is None]
    named: list[ir.Value | ir.Node] = [*(n for n in nodes if n.name in float_names), *values]
    kept = _affordable(named, float_names, room)
    for node in nodes:
        if node not in kept:
            node.name = ""  # onnx_ir would make a name for None
    shortened = [value for value in values if value not in kept]
    former = {value: str(value.name) for value in operands if value in set(shortened)}
    shortened.sort(key=lambda value: -len(value.uses()))  # stable: the file is the same every time
    initializers = {graph: list(graph.initializers.values()) for graph in model.graphs()}
    for graph in initializers:
        graph.initializers.clear()  # while they are in it, two initializers can't swap names
    # A former name may be given back later.
    taken = {*public, *former.values(), *(str(value.name) for value in values if value in kept)}
    names = (name for name in _short_names() if name not in taken)
    for value, name in zip(shortened, names, strict=False):
        value.name = name
    for graph, ordered in initializers.items():
        for value in ordered:
            graph.initializers.add(value)
    return {str(value.name): name for value, name in former.items()}


def _affordable(
    named: Iterable[ir.Value | ir.Node], float_names: Collection[str], room: int
) -> set[ir.Value | ir.Node]:
    """Chooses the values and nodes that keep their names."""
    ordered = sorted(
        ((item.name not in float_names, _extra_bytes(item), number, item))
        for number, item in enumerate(named)
    )
    kept = set()
    for _, extra, _, item in ordered:
        if extra <= room:
            room -= extra
            kept.add(item)
    return kept


def _extra_bytes(item: ir.Value | ir.Node) -> int:
    """Counts the bytes that the name of a value or node takes, beyond a short one."""
    length = len(str(item.name).encode())
    if isinstance(item, ir.Node):
        return length + 3  # of the field, of the length, and of a node that becomes long
    return (1 + len(item.uses()) + item.is_graph_output()) * (length - 1)


def restore_names(model: ir.Model, names: Mapping[str, str]) -> None:
    """Gives values their former names back, in place; all others keep their short names.

    Args:
        model: The written model.
        names: Former names by the short ones.
    """
    for value in _operands(model):
        value.name = names.get(str(value.name), value.name)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Lists all values with a name, those in subgraphs included."""
    for graph in model.graphs():
        yield from graph.initializers.values()
        yield from (value for value in graph.inputs if not value.is_initializer())
        for node in graph:
            yield from (value for value in node.outputs if value.name)


def _operands(model: ir.Model) -> dict[ir.Value, None]:
    """Finds the values that MAC nodes and lookups read, and operands before they are transposed."""
    found: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        spec = _spec(node)
        if spec is None:
            continue
        operands = [value for _, value in spec.operand_values(node)]
        sources = [mover.inputs[0] for value in operands for mover in transposes_above(value)]
        found.update((v, None) for v in (*operands, *sources, spec.bias_value(node)) if v)
    return found


def _spec(node: ir.Node) -> OpSpec | None:
    """Returns the entry of a MAC node or lookup in the table of operators, else ``None``."""
    return mac_spec(node) or lookup_spec(node)


def _short_names() -> Iterator[str]:
    """Yields ``a``, ``b``, ..., ``Z``, ``aa``, ``ab``, ..."""
    for length in count(1):
        for letters in product(ascii_letters, repeat=length):
            yield "".join(letters)
