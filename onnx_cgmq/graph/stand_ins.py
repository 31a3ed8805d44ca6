"""Puts standard operators in place of those that onnx's shape inference does not know."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph import qonnx
from onnx_cgmq.graph.files.protos import all_nodes

_QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear")


def stand_in_for_qonnx(model: onnx.ModelProto) -> None:
    """Replaces the quantizers of QONNX by Identity, in place; both keep shapes and types.

    The graph keeps the number of nodes, their order and their outputs.
    """
    for node in all_nodes(model.graph):
        if node.domain in QUANT_DOMAINS and node.op_type in qonnx.QUANTIZERS:
            _replace(node, "Identity")


def stand_in_for_onnxruntime(model: onnx.ModelProto) -> None:
    """Replaces operators of ``com.microsoft`` that keep the shape of their input, in place.

    QuantizeLinear and DequantizeLinear become Cast, and RotaryEmbedding becomes Identity.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for node in all_nodes(model.graph):
        if node.domain != "com.microsoft":
            continue
        if node.op_type in _QUANTIZERS:
            _replace(node, "Cast", _type_made(node, types))
        elif node.op_type == "RotaryEmbedding":
            _replace(node, "Identity")


def _type_made(node: onnx.NodeProto, types: dict[str, int]) -> int:
    """Returns the element type of a quantizer's output, by the types of named inputs."""
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
