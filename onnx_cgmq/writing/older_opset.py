"""Lowers the opset of a model as far as all nodes keep their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema, get_schema, has

from onnx_cgmq.graph.nodes import standard_op

OLDEST_OPSET: Final = 13
"""The oldest opset that a model is brought to. Before it, common operators had other inputs: axes
of Squeeze and ReduceSum were attributes."""


def lower_opset(model: ir.Model) -> None:
    """Lowers opset and IR version of a model as far as all nodes keep their meaning, in place.

    A new version of an operator often only allows more types, or one more optional input. Only such
    versions are undone, and only if a node uses neither. A node with a string attribute other than
    the default keeps its version, because that string may be new in it.

    A model with functions stays as it is.
    """
    current = model.graph.opset_imports[""]
    if model.functions:
        return
    nodes = [node for graph in model.graphs() for node in graph if standard_op(node) is not None]
    opset = max((_oldest_equal(node, current) for node in nodes), default=OLDEST_OPSET)
    model.graph.opset_imports[""] = min(current, opset)
    imports = [onnx.helper.make_opsetid("", model.graph.opset_imports[""])]
    model.ir_version = int(onnx.helper.find_min_ir_version_for(imports))


def _oldest_equal(node: ir.Node, opset: int) -> int:
    """Returns the oldest opset in which a node means the same as in ``opset``."""
    schema = get_schema(node.op_type, opset, "")
    while schema.since_version > OLDEST_OPSET:
        before = schema.since_version - 1
        older = get_schema(node.op_type, before, "") if has(node.op_type, before, "") else None
        if older is None or not _means_the_same(node, older, schema):
            return int(schema.since_version)
        schema = older
    return OLDEST_OPSET


def _means_the_same(node: ir.Node, older: OpSchema, newer: OpSchema) -> bool:
    """Says whether a node surely means the same in two neighbouring versions of its operator."""
    shared = zip(older.inputs, newer.inputs, strict=False)
    return (
        older.since_version < newer.since_version
        and len(node.inputs) <= _max_inputs(older.inputs)
        and len(older.outputs) == len(newer.outputs)
        and all(old.option == new.option for old, new in shared)
        and _attribute_types(older) == _attribute_types(newer)
        and _has_default_strings(node, older)
        and _allows_types(older, older.inputs, node.inputs)
        and _allows_types(older, older.outputs, node.outputs)
    )


def _max_inputs(formals: Sequence[OpSchema.FormalParameter]) -> float:
    """Returns how many inputs an operator has at most."""
    variadic = OpSchema.FormalParameterOption.Variadic
    return float("inf") if formals and formals[-1].option == variadic else len(formals)


def _attribute_types(schema: OpSchema) -> dict[str, tuple[object, bool, str]]:
    """Returns type, whether it is required, and default of every attribute by its name."""
    return {
        name: (attribute.type, attribute.required, str(attribute.default_value))
        for name, attribute in schema.attributes.items()
    }


def _has_default_strings(node: ir.Node, schema: OpSchema) -> bool:
    """Says whether all string attributes of a node have their default values."""
    return all(
        attribute.as_string() == schema.attributes[name].default_value.s.decode()
        for name, attribute in node.attributes.items()
        if attribute.type is ir.AttributeType.STRING
    )


def _allows_types(
    schema: OpSchema,
    formals: Sequence[OpSchema.FormalParameter],
    values: Sequence[ir.Value | None],
) -> bool:
    """Says whether an operator allows the types of values, as far as these are known.

    Args:
        schema: The operator.
        formals: Its inputs or outputs.
        values: The values that a node has in their place.
    """
    types = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    for value, formal in zip_longest(values, formals[: len(values)]):
        formal = formal or formals[-1]  # variadic
        if value is None or not isinstance(value.type, ir.TensorType):
            continue
        name = f"tensor({value.type.dtype.name.lower()})"
        if name not in types.get(formal.type_str, {formal.type_str}):
            return False
    return True
