"""Small questions about a node: its operator, its names, its attributes."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

_STANDARD_DOMAINS: Final = ("", "ai.onnx")


def standard_op(node: ir.Node) -> str | None:
    """Returns the operator of a node of the standard domain, else ``None``."""
    return node.op_type if node.domain in _STANDARD_DOMAINS else None


def operator_key(node: ir.Node) -> str:
    """Names the operator of a node, as in the table of operators.

    The name is like ``Conv`` in the standard domain, and like ``com.microsoft.QGemm`` in others.
    """
    return standard_op(node) or f"{node.domain}.{node.op_type}"


def node_key(node: ir.Node) -> str:
    """Returns a name that no other node of the graph has: that of the node's first output.

    Names of nodes need not be unique.
    """
    return next((str(value.name) for value in node.outputs if value.name), "")


def called(node: ir.Node) -> str:
    """Names a node in a message: ``Relu 'act'``, or ``Relu of output 'y'`` if it has no name."""
    name = f"'{node.name}'" if node.name else f"of output '{node_key(node)}'"
    return f"{node.op_type} {name}"


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Returns the value of an integer attribute.

    Args:
        node: The node.
        name: Name of the attribute.
        default: What to return if the node lacks the attribute.
    """
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Returns the value of a float attribute; see :func:`int_attribute`.

    Args:
        node: The node.
        name: Name of the attribute.
        default: What to return if the node lacks the attribute.
    """
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def text_attribute(node: ir.Node, name: str, default: str) -> str:
    """Returns the value of a string attribute; see :func:`int_attribute`.

    Args:
        node: The node.
        name: Name of the attribute.
        default: What to return if the node lacks the attribute.
    """
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
