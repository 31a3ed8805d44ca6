"""Chooses the handler of every node, or says of all nodes without one why."""

from __future__ import annotations

from collections import defaultdict

import onnx_ir as ir

import onnx_cgmq.mirror.ops  # noqa: F401  (registers the operators)
from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror.dtypes import is_supported
from onnx_cgmq.mirror.registry import OLDEST_OPSET, Context, Operator, find_operator

GATED_DOMAIN = "onnx_cgmq"


def is_quantizer(node: ir.Node) -> bool:
    """Whether a node is a gated quantizer."""
    return node.domain == GATED_DOMAIN and node.op_type.startswith("GatedQDQ")


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def opset_of(node: ir.Node, model: ir.Model) -> int:
    """Version of the operator set of a node's domain that the model imports."""
    return model.opset_imports.get(_domain(node), 1)


def context_of(node: ir.Node, model: ir.Model) -> Context:
    """What a handler learns of a node."""
    named = frozenset(index for index, value in enumerate(node.outputs) if value.name)
    return Context(
        node=node.name or "",
        op_type=node.op_type,
        opset=opset_of(node, model),
        attributes={name: attribute.value for name, attribute in node.attributes.items()},
        input_types=tuple(None if v is None else _type_of(v) for v in node.inputs),
        output_count=max(named, default=0) + 1,
        named_outputs=named,
    )


def _type_of(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def choose_operators(model: ir.Model) -> dict[ir.Node, Operator]:
    """The handler of every node that is not a gated one.

    Raises:
        UnsupportedOperatorError: If any node has none that is exact; names all of them.
    """
    chosen: dict[ir.Node, Operator] = {}
    problems: dict[tuple[str, str], list[str]] = defaultdict(list)
    for index, node in enumerate(model.graph):
        if is_quantizer(node) or (node.domain, node.op_type) == (GATED_DOMAIN, "AccumulatorQDQ"):
            continue
        operator, reason = _choose(node, model)
        if operator is None:
            where = f"{_domain(node) or 'ai.onnx'} opset {opset_of(node, model)}"
            problems[f"{node.op_type} ({where})", reason].append(node.name or f"#{index}")
        else:
            chosen[node] = operator
    if problems:
        lines = [
            f"{operator}: {reason}; node{'s' if len(nodes) > 1 else ''} {', '.join(nodes)}"
            for (operator, reason), nodes in sorted(problems.items())
        ]
        raise UnsupportedOperatorError(
            "the model has operators that can't be run differentiably:\n  "
            + "\n  ".join(lines)
            + "\nReplace them in the model, or register a handler with "
            "onnx_cgmq.mirror.registry.onnx_op."
        )
    return chosen


def _choose(node: ir.Node, model: ir.Model) -> tuple[Operator | None, str]:
    opset = opset_of(node, model)
    if _domain(node) == "" and opset < OLDEST_OPSET:
        return None, f"opsets before {OLDEST_OPSET} must be upgraded first, see prepare()"
    operator = find_operator(_domain(node), node.op_type, opset)
    if operator is None:
        return None, "no such operator in the mirror"
    types = [_type_of(value) for value in (*node.inputs, *node.outputs) if value is not None]
    unfit = sorted({t.name for t in types if t is not None and not is_supported(t)})
    if unfit:
        return None, f"no tensors of type {', '.join(unfit)}"
    reason = operator.check(context_of(node, model)) if operator.check is not None else None
    return (operator, "") if reason is None else (None, reason)
