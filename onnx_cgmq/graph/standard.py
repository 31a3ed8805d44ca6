"""What the installed onnx knows about the standard operators: their versions and definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir


def same_operator(op_type: str, opset: int, other: int) -> bool:
    """Says whether an operator of the standard domain is the same in two opsets.

    Args:
        op_type: The operator.
        opset: One opset.
        other: The other opset.
    """
    try:
        first, second = (onnx.defs.get_schema(op_type, version, "") for version in (opset, other))
    except onnx.defs.SchemaError:
        return False
    return bool(first.since_version == second.since_version)


def standard_function(
    node: ir.Node,
    attributes: Mapping[str, ir.Attr],
    opset: int,
    input_types: Sequence[ir.DataType | None],
) -> ir.Function | None:
    """Returns the definition that the standard has for a node's operator, as a function.

    Args:
        node: The node.
        attributes: The attributes of the node, none of which may refer to an attribute of a
            function that contains the node.
        opset: Version of the operator set of the node's domain.
        input_types: Element types of the inputs, ``None`` where unknown or omitted. Some
            definitions depend on them.

    Returns:
        The function, whose attributes have the defaults of the operator; ``None`` if the standard
        has no definition for these inputs.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    proto = _definition(schema, node, attributes, opset, input_types)
    if proto is None or not proto.node:  # onnx gives an empty definition if types are unknown
        return None
    function = ir.serde.deserialize_function(proto)
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type:
            default = ir.serde.deserialize_attribute(attribute.default_value)
            function.attributes[name] = default
    function.opset_imports.setdefault("", opset)
    return function


def _definition(
    schema: Any,  # onnx.defs.OpSchema, whose stubs lack what is used here
    node: ir.Node,
    attributes: Mapping[str, ir.Attr],
    opset: int,
    input_types: Sequence[ir.DataType | None],
) -> onnx.FunctionProto | None:
    # A definition is written in operators of one opset. They mean the same in the model if we
    # take the newest definition that is not newer than the model's opset.
    definition: onnx.FunctionProto | None = None
    fixed = [v for v in schema.function_opset_versions if v <= opset]
    built = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if fixed:
        content = schema.get_function_with_opset_version(max(fixed))
        definition = onnx.FunctionProto.FromString(content)
    elif built:
        bare = ir.serde.serialize_node(node)
        del bare.attribute[:]
        bare.attribute.extend(ir.serde.serialize_attribute(a) for a in attributes.values())
        types = [_type(value, t) for value, t in zip(node.inputs, input_types, strict=True)]
        try:
            content = schema.get_context_dependent_function_with_opset_version(
                max(built), bare.SerializeToString(), types
            )
        except RuntimeError:  # there is no definition for these types
            return None
        definition = onnx.FunctionProto.FromString(content)
    return definition


def _type(value: ir.Value | None, dtype: ir.DataType | None) -> bytes:
    """Serializes a ``TypeProto``; it is empty for an input that is omitted or of unknown type."""
    proto = onnx.TypeProto()
    if value is not None and dtype is not None:
        shape = None
        if value.shape is not None:
            shape = [size if isinstance(size, int) else size.value for size in value.shape]
        proto = onnx.helper.make_tensor_type_proto(dtype.value, shape)
    content: bytes = proto.SerializeToString()
    return content
