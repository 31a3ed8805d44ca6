"""Leaves out attributes that have their default values."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op


def drop_default_attributes(model: ir.Model) -> None:
    """Removes attributes that have the default value of the standard, in place.

    Nodes in subgraphs are included. For Conv this also removes strides and dilations of 1, pads of
    0, and ``kernel_shape``, which follows from the shape of the weight.
    """
    opset = model.graph.opset_imports.get("", 1)
    for node in model.graph.all_nodes():
        operator = standard_op(node)
        if operator is None or not onnx.defs.has(operator, opset):
            continue
        schema = onnx.defs.get_schema(operator, opset)
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref() or name not in schema.attributes:
                continue
            default = schema.attributes[name].default_value
            if default.type and ir.to_proto(attribute) == _named(default, name):
                del node.attributes[name]
        if operator == "Conv":
            _drop_defaults_of_conv(node)


def _named(default: onnx.AttributeProto, name: str) -> onnx.AttributeProto:
    """Copies a default value and gives it a name, as attributes of nodes have one."""
    proto = onnx.AttributeProto()
    proto.CopyFrom(default)
    proto.name = name
    return proto


def _drop_defaults_of_conv(node: ir.Node) -> None:
    """Removes default values of Conv that its schema can't hold, as they depend on the rank."""
    weight = node.inputs[1]
    shape = None if weight is None or weight.shape is None else tuple(weight.shape)
    for name, default in (("strides", 1), ("dilations", 1), ("pads", 0)):
        attribute = node.attributes.get(name)
        if attribute is not None and set(attribute.as_ints()) == {default}:
            del node.attributes[name]
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None and shape is not None and shape[2:] == tuple(kernel.as_ints()):
        del node.attributes["kernel_shape"]
