"""Gives short names to the values between nodes, which users do not ask for by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, product
from string import ascii_letters

import onnx_ir as ir

from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.operators import lookup_spec, mac_spec


def shorten_names(model: ir.Model) -> dict[str, str]:
    """Gives values short names, in place; those that are read most get the shortest.

    Inputs and outputs of the model keep their names, and so do MAC nodes and lookups in embedding
    tables. Other nodes lose their names.

    Returns:
        The former names, by the new ones, of the values that MAC nodes and lookups read.
    """
    public = {str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)}
    values = [value for value in _values(model) if value.name not in public]
    former = {value: str(value.name) for value in _operands(model) if value.name not in public}
    values.sort(key=lambda value: -len(value.uses()))  # stable, so the file is the same every time
    initializers = {graph: list(graph.initializers.values()) for graph in model.graphs()}
    for graph in initializers:
        graph.initializers.clear()  # while they are in it, two initializers can't swap names
    taken = {*public, *former.values()}  # a former name may be given back later
    names = (name for name in _short_names() if name not in taken)
    for value, name in zip(values, names, strict=False):
        value.name = name
    for graph, ordered in initializers.items():
        for value in ordered:
            graph.initializers.add(value)
    for node in model.graph.all_nodes():
        if _spec(node) is None:
            node.name = ""  # onnx_ir would make a name for None
    return {str(value.name): name for value, name in former.items()}


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
