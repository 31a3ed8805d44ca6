"""Small questions on a node: its operator, its names, its attributes."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

_STANDARD_DOMAINS: Final = ("", "ai.onnx")


def standard_op(node: ir.Node) -> str | None:
    """Operator type of a node of the standard domain, else ``None``."""
    return node.op_type if node.domain in _STANDARD_DOMAINS else None


def operator_key(node: ir.Node) -> str:
    """``Conv`` for operators of the standard domain, ``com.microsoft.QGemm`` for others."""
    return standard_op(node) or f"{node.domain}.{node.op_type}"


def node_key(node: ir.Node) -> str:
    """The name of a node's first output: unlike its own, no other node of the graph has it."""
    return next((str(value.name) for value in node.outputs if value.name), "")


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Value of an integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Value of a float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def text_attribute(node: ir.Node, name: str, default: str) -> str:
    """Value of a string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
