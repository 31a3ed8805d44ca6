"""Short names for values: what only ties nodes together needs no text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, product
from string import ascii_letters

import onnx_ir as ir

from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.operators import lookup_spec, mac_spec


def shorten_names(model: ir.Model) -> dict[str, str]:
    """Gives values the shortest names, the shortest of all to those read most, in place.

    Inputs and outputs of the model keep theirs, and so do MAC operators and lookups in tables;
    other nodes need no name.

    Returns:
        The former names, by the new ones, of what MAC operators and lookups read.
    """
    public = {str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)}
    values = [value for value in _values(model) if value.name not in public]
    former = {value: str(value.name) for value in _operands(model) if value.name not in public}
    values.sort(key=lambda value: -len(value.uses()))  # stable: the same file every time
    initializers = {graph: list(graph.initializers.values()) for graph in model.graphs()}
    for graph in initializers:
        graph.initializers.clear()  # two of them can't swap names in it
    taken = {*public, *former.values()}  # the former ones can come back
    names = (name for name in _short_names() if name not in taken)
    for value, name in zip(values, names, strict=False):
        value.name = name
    for graph, ordered in initializers.items():
        for value in ordered:
            graph.initializers.add(value)
    for node in model.graph.all_nodes():
        if _spec(node) is None:
            node.name = ""  # None would be given a name
    return {str(value.name): name for value, name in former.items()}


def restore_names(model: ir.Model, names: Mapping[str, str]) -> None:
    """Gives values their former names again, in place; the rest keep the short ones."""
    for value in _operands(model):
        value.name = names.get(str(value.name), value.name)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """All values with a name, subgraphs included."""
    for graph in model.graphs():
        yield from graph.initializers.values()
        yield from (value for value in graph.inputs if not value.is_initializer())
        for node in graph:
            yield from (value for value in node.outputs if value.name)


def _operands(model: ir.Model) -> dict[ir.Value, None]:
    """Operands and biases, and what is behind the Transpose nodes above an operand."""
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
    return mac_spec(node) or lookup_spec(node)


def _short_names() -> Iterator[str]:
    """``a``, ``b``, ..., ``Z``, ``aa``, ``ab``, ..."""
    for length in count(1):
        for letters in product(ascii_letters, repeat=length):
            yield "".join(letters)
