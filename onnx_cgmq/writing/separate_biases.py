"""Keeps biases that an Add of its own adds to a product in floats, as they were learned.

With static shapes, onnxruntime makes one Gemm of MatMul and Add (MatMulAddFusion), and then rounds
the float bias to INT32 at the product of both steps (WeightBiasQuantization). That is coarse at few
bits: the file would compute something else than the mirror. A bias with as many axes as the product
is left alone, and the product runs in its integer kernel.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op


def separate_biases(graph: ir.Graph) -> None:
    """Gives vectors that are added to products of quantized tensors all axes of the product.

    In place. Broadcasting makes the same of them.

    Args:
        graph: A written graph, with DequantizeLinear nodes at the operands of integer kernels.
    """
    for node in graph:
        if standard_op(node) != "Add" or len(node.inputs) != 2:
            continue
        for bias, product in (node.inputs, node.inputs[::-1]):
            rank = _rank_of_product(product)
            if rank is not None and bias is not None and bias.const_value is not None:
                _give_axes(graph, node, bias, rank)


def _rank_of_product(value: ir.Value | None) -> int | None:
    """Number of axes of a product that MatMul makes of a quantized tensor; ``None`` otherwise."""
    node = None if value is None else value.producer()
    if value is None or value.shape is None or node is None or standard_op(node) != "MatMul":
        return None
    return len(value.shape) if any(map(_is_dequantized, node.inputs)) else None


def _is_dequantized(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and standard_op(node) == "DequantizeLinear"


def _give_axes(graph: ir.Graph, node: ir.Node, bias: ir.Value, rank: int) -> None:
    assert bias.const_value is not None
    array = bias.const_value.numpy()
    if array.ndim >= rank or rank < 3:  # with two axes it is a Gemm already
        return
    shape = (1,) * (rank - array.ndim) + array.shape
    name = f"{bias.name}.as_{rank}d"
    value = graph.initializers.get(name)
    if value is None:
        tensor = ir.tensor(array.reshape(shape), name=name)
        value = ir.Value(name=name, type=bias.type, shape=ir.Shape(shape), const_value=tensor)
        graph.register_initializer(value)
    for index, read in enumerate(node.inputs):
        if read is bias:
            node.replace_input_with(index, value)
