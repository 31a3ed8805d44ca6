"""Finds the matrix products whose activation onnxruntime can quantize at run time.

onnxruntime makes one kernel of DynamicQuantizeLinear and MatMulInteger: DynamicQuantizeMatMul, or
MatMulIntegerToFloat where several products read one activation. Both take a constant matrix as the
second factor.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.layouts import stored_weight
from onnx_cgmq.graph.mac_operators import is_plain_product
from onnx_cgmq.graph.nodes import called, standard_op


def why_not_dynamic(node: ir.Node) -> str:
    """Says why a node can't read an activation that is quantized at run time; empty if it can.

    Args:
        node: A node that multiplies and accumulates, whose weight has no quantizer yet.
    """
    if standard_op(node) not in ("MatMul", "Gemm"):
        return f"{called(node)} is no matrix product, so its activation stays float"
    first, second = (node.inputs[index] for index in (0, 1))
    weight = None if second is None else stored_weight(second)[0].const_value
    if weight is None or len(weight.shape) != 2:
        return f"the second factor of {called(node)} is no constant matrix, so the first is float"
    if first is None or stored_weight(first)[0].const_value is not None:
        return f"the first factor of {called(node)} is a constant"
    if not is_plain_product(node):
        return f"{called(node)} has factors, or turns its first operand"
    return ""
