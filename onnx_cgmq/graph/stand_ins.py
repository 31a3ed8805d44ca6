"""Puts standard operators in place of those that onnx's shape inference does not know."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.files.protos import all_nodes
from onnx_cgmq.graph.qonnx import QUANTIZERS

_OF_ONNXRUNTIME: Final = ("QuantizeLinear", "DequantizeLinear")


def stand_in_for_qonnx(model: onnx.ModelProto) -> None:
    """Replaces the quantizers of QONNX by Identity, in place; both keep shapes and types.

    The graph keeps the number of nodes, their order and their outputs.
    """
    for node in all_nodes(model.graph):
        if node.domain in QUANT_DOMAINS and node.op_type in QUANTIZERS:
            _replace(node, "Identity")


def stand_in_for_onnxruntime(model: onnx.ModelProto) -> None:
    """Replaces QuantizeLinear and DequantizeLinear of ``com.microsoft`` by Cast, in place."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for node in all_nodes(model.graph):
        if node.domain == "com.microsoft" and node.op_type in _OF_ONNXRUNTIME:
            _replace(node, "Cast", _type_made(node, types))


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
