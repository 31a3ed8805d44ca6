"""Keeps onnxruntime from rounding float biases that an Add adds to the product of a MatMul.

If shapes are static, onnxruntime fuses MatMul and Add into one Gemm (MatMulAddFusion), and then
rounds the float bias to INT32, in units of the product of both steps (WeightBiasQuantization). At
few bits these units are large, so the file would compute something else than the mirror.
onnxruntime does not fuse an Add whose bias has as many axes as the product; the MatMul then still
runs in its integer kernel.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op


def separate_biases(graph: ir.Graph) -> None:
    """Gives biases of MatMul as many axes as the product has, in place.

    The values stay the same, because the added axes have length 1 and broadcast.

    Args:
        graph: A written graph, with DequantizeLinear nodes before the operands of integer kernels.
    """
    for node in graph:
        if standard_op(node) != "Add" or len(node.inputs) != 2:
            continue
        for bias, product in (node.inputs, node.inputs[::-1]):
            rank = _rank_of_product(product)
            if rank is not None and bias is not None and bias.const_value is not None:
                _give_axes(graph, node, bias, rank)


def _rank_of_product(value: ir.Value | None) -> int | None:
    """Returns the number of axes of a product of a quantized tensor; ``None`` for other values."""
    node = None if value is None else value.producer()
    if value is None or value.shape is None or node is None or standard_op(node) != "MatMul":
        return None
    return len(value.shape) if any(map(_is_dequantized, node.inputs)) else None


def _is_dequantized(value: ir.Value | None) -> bool:
    """Says whether DequantizeLinear makes a value."""
    node = None if value is None else value.producer()
    return node is not None and standard_op(node) == "DequantizeLinear"


def _give_axes(graph: ir.Graph, node: ir.Node, bias: ir.Value, rank: int) -> None:
    """Makes an Add read its bias with axes of length 1 before its own.

    Args:
        graph: The graph.
        node: The Add.
        bias: The constant that it adds.
        rank: Number of axes that the bias is to have.
    """
    assert bias.const_value is not None
    array = bias.const_value.numpy()
    if array.ndim >= rank or rank < 3:  # with two axes, the product and its bias are a Gemm already
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
