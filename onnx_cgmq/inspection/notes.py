"""Notes on what a report could not count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.cost.macs import has_open_size
from onnx_cgmq.graph.nodes import operator_key, standard_op
from onnx_cgmq.graph.operators import is_known, mac_spec
from onnx_cgmq.graph.qonnx import QUANTIZERS
from onnx_cgmq.ort.sizes import Sizes


def first_of(names: Sequence[str | None]) -> str:
    """Writes the first of some names, and how many more there are."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else str(names[0])


def unknown_operators(model: ir.Model) -> tuple[str, ...]:
    """Writes a note on every operator of another domain that may multiply and is not counted."""
    unknown = Counter(
        operator_key(node)
        for node in model.graph.all_nodes()
        if standard_op(node) is None and mac_spec(node) is None and not _is_harmless(node)
    )
    return tuple(
        f"{operator} ({count} node{'s' * (count > 1)}) is not known: if it multiplies and "
        "accumulates, its cost is not counted"
        for operator, count in unknown.items()
    )


def overridable_constants(model: ir.Model) -> tuple[str, ...]:
    """A sentence on constants that are inputs too, of which nothing follows."""
    found = [value.name for value in model.graph.inputs if value.const_value is not None]
    if not found:
        return ()
    return (
        "callers may override constants that are inputs of the model too, so they fix no width and "
        f"no limit: {first_of(found)}; take them off the graph's inputs if nobody does",
    )


def declared_sizes(model: ir.Model, declared: Collection[ir.Value]) -> tuple[str, ...]:
    """A sentence on operands whose sizes the file only declares."""
    found = [
        node.name or str(node.outputs[0].name)
        for node in model.graph.all_nodes()
        if (spec := mac_spec(node)) is not None
        and any(value in declared for _, value in spec.operand_values(node))
    ]
    if not found:
        return ()
    return (f"sizes that do not follow from the inputs are as the file says: {first_of(found)}",)


def open_sizes(model: ir.Model) -> tuple[str, ...]:
    """Writes a note on operands with sizes that are not known, if there are any."""
    sizes = Sizes(model)
    found = [
        node.name or str(node.outputs[0].name)
        for node in model.graph.all_nodes()
        if mac_spec(node) is not None and has_open_size(node, sizes)
    ]
    if not found:
        return ()
    return (
        "sizes that the file leaves open count as 1 unless --shape (in Python: shapes) gives them: "
        f"{first_of(found)}",
    )


def _is_harmless(node: ir.Node) -> bool:
    """Says whether a node of another domain is known to have no multiply-accumulates."""
    if node.domain in QUANT_DOMAINS:
        return node.op_type in QUANTIZERS
    if node.domain == "ai.onnx.ml":
        return not node.op_type.startswith(("Linear", "SVM"))
    return is_known(node)
