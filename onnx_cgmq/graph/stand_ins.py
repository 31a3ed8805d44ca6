"""Standard operators in place of those that onnx's shape inference does not know."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto

QONNX_DOMAINS: Final = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
"""Domains of the quantizers of QONNX, Brevitas and FINN."""

_KEEPS_SHAPE: Final = ("BipolarQuant", "FloatQuant", "IntQuant", "Quant", "Trunc")


def stand_in(model: onnx.ModelProto) -> None:
    """Replaces quantizers of other domains by nodes with the same shapes and types, in place.

    Those of QONNX become Identity, those of onnxruntime (``com.microsoft``) become Cast. There are
    as many nodes as before, with the same outputs, in the same order.
    """
    _stand_in(model.graph, {tensor.name: tensor.data_type for tensor in model.graph.initializer})


def _stand_in(graph: onnx.GraphProto, types: dict[str, int]) -> None:
    types = types | {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        if node.domain in QONNX_DOMAINS and node.op_type in _KEEPS_SHAPE:
            _replace(node, "Identity")
        elif node.domain == "com.microsoft" and node.op_type in (
            "QuantizeLinear",
            "DequantizeLinear",
        ):
            _replace(node, "Cast", _type_made(node, types))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _stand_in(attribute.g, types)


def _type_made(node: onnx.NodeProto, types: dict[str, int]) -> int:
    if node.op_type == "DequantizeLinear":
        return types.get(node.input[1], TensorProto.FLOAT)
    zero_point = node.input[2] if len(node.input) > 2 else ""
    return types.get(zero_point, TensorProto.UINT8)


def _replace(node: onnx.NodeProto, op_type: str, to: int | None = None) -> None:
    node.domain, node.op_type = "", op_type
    del node.input[1:]
    del node.attribute[:]
    if to is not None:
        node.attribute.append(onnx.helper.make_attribute("to", to))
