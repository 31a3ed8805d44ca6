"""Who reads a value."""

from __future__ import annotations

import onnx_ir as ir


def has_one_reader(value: ir.Value) -> bool:
    """Whether just one input of one node reads a value, and it is no output of the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value; ``None`` if others do, or if the graph gives it out."""
    return next(iter(value.uses())).node if has_one_reader(value) else None
