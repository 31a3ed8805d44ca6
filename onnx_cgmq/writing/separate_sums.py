"""Keeps onnxruntime from running a product in floats because of an Add behind it.

onnxruntime fuses a MatMul of two axes with an Add behind it into one float Gemm (MatMulAddFusion),
so that the product no longer runs in its integer kernel; with more axes, it does so if what is
added has one axis. Sum computes the same, and onnxruntime does not fuse it. (Biases that are
constant are part of the product, or :mod:`~onnx_cgmq.writing.separate_biases` gives them axes.)
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op


def separate_sums(graph: ir.Graph, products: Collection[ir.Node]) -> None:
    """Makes an Add that onnxruntime would fuse with a product a Sum, in place.

    Args:
        graph: A written graph.
        products: The MatMul nodes of the graph that are to run in integers.
    """
    for node in graph:
        if standard_op(node) != "Add":
            continue
        for product, added in (node.inputs, node.inputs[::-1]):
            is_product = product is not None and product.producer() in products
            if is_product and (_rank(product) in (None, 2) or _rank(added) in (None, 1)):
                node.op_type = "Sum"


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)
