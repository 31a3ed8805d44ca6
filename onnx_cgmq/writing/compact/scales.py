"""Stores scales and zero points in fewer bytes, where they stay the same to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import mac_spec

_NODE_BYTES: Final = 28
"""Bytes that a ``Mul`` or ``Cast`` node takes in a file with short names."""

_NARROW: Final = {ir.DataType.FLOAT8E5M2: 19, ir.DataType.BFLOAT16: 13}
"""The narrow types for scales, the smallest first, with the opset since which Cast knows them."""


def compute_bias_scales(graph: ir.Graph) -> None:
    """Computes scales of INT32 biases by a ``Mul`` of the scales of both operands, in place.

    This is done only where the product is the same to the last bit and takes fewer bytes.
    onnxruntime folds it when it loads the file.
    """
    for node in list(graph):
        spec = mac_spec(node)
        bias = spec.bias_value(node) if spec is not None else None
        if spec is None or bias is None:
            continue
        dequantize = _dequantizer(bias)
        factors = [_scale(value) for _, value in spec.operand_values(node)]
        if dequantize is not None and len(factors) == 2:
            _compute_scale(dequantize, *factors)


def _compute_scale(dequantize: ir.Node, a: ir.Value | None, b: ir.Value | None) -> None:
    """Replaces the scale of a DequantizeLinear by ``a * b``, if that is equal and smaller."""
    scale = dequantize.inputs[1]
    if scale is None or a is None or b is None:
        return
    wanted, first, second = scale.const_value, a.const_value, b.const_value
    if wanted is None or first is None or second is None or wanted.nbytes <= _NODE_BYTES:
        return
    product = np.multiply(first.numpy(), second.numpy(), dtype=np.float32)
    if np.array_equal(product, wanted.numpy()):
        _replace_scale(dequantize, scale, ir.node("Mul", [a, b]))


def drop_zero_points_of_int32(graph: ir.Graph) -> None:
    """Removes zero points of INT32 codes that are 0, which is their default, in place."""
    for node in graph:
        if standard_op(node) == "DequantizeLinear" and len(node.inputs) > 2:
            zero_point = node.inputs[2]
            constant = zero_point.const_value if zero_point is not None else None
            if constant is None or constant.dtype is not ir.DataType.INT32:
                continue
            if not constant.numpy().any():
                node.resize_inputs(2)


def narrow_scales(graph: ir.Graph, opset: int) -> None:
    """Stores float32 scales of channels in 8 or 16 bits, with a ``Cast`` to float32, in place.

    This is done only where the scales have so few significant bits that their values do not change,
    and where it makes the file smaller.

    Args:
        graph: The graph.
        opset: Opset of the standard operators in it.
    """
    for scale in dict.fromkeys(_stored_scales(graph)):
        assert scale.const_value is not None
        narrow = _narrowed(scale.const_value, opset)
        if narrow is None:
            continue
        stored = ir.Value(
            name=f"{scale.name}.narrow",
            type=ir.TensorType(narrow.dtype),
            shape=scale.shape,
            const_value=narrow,
        )
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
        wide = cast.outputs[0]
        wide.name, wide.type, wide.shape = f"{scale.name}.wide", scale.type, scale.shape
        scale.replace_all_uses_with(wide)
        graph.initializers.pop(str(scale.name))
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)


def _stored_scales(graph: ir.Graph) -> Iterator[ir.Value]:
    """Lists the float32 initializers by which codes are multiplied."""
    for node in graph:
        operator = standard_op(node)
        codes = node.inputs[0] if operator in ("DequantizeLinear", "Mul") else None
        if codes is None or (operator == "Mul" and not _is_cast(codes)):
            continue
        scale = node.inputs[1]
        constant = scale.const_value if scale is not None else None
        if scale is None or constant is None or scale.is_graph_output():
            continue
        if constant.dtype is ir.DataType.FLOAT and scale.is_initializer():
            yield scale


def _is_cast(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and standard_op(node) == "Cast"


def _narrowed(tensor: ir.TensorProtocol, opset: int) -> ir.TensorProtocol | None:
    """Converts a tensor to the smallest type that holds it exactly.

    Returns:
        The converted tensor, or ``None`` if no type holds it in fewer bytes.
    """
    values = tensor.numpy()
    for data_type, since in _NARROW.items():
        saved = values.nbytes - values.size * data_type.bitwidth // 8
        if opset >= since and saved > _NODE_BYTES:
            with np.errstate(over="ignore"):
                narrow = values.astype(data_type.numpy())
            if np.array_equal(narrow.astype(np.float32), values):
                return ir.Tensor(narrow, dtype=data_type)
    return None


def _replace_scale(dequantize: ir.Node, scale: ir.Value, computed: ir.Node) -> None:
    """Makes a DequantizeLinear read the output of a new node instead of its scale."""
    output = computed.outputs[0]
    output.name, output.type, output.shape = f"{scale.name}.computed", scale.type, scale.shape
    assert dequantize.graph is not None
    dequantize.graph.insert_before(dequantize, computed)
    dequantize.replace_input_with(1, output)


def _dequantizer(value: ir.Value) -> ir.Node | None:
    """Returns the DequantizeLinear that makes a value, if one does."""
    node = value.producer()
    return node if node is not None and standard_op(node) == "DequantizeLinear" else None


def _scale(value: ir.Value) -> ir.Value | None:
    """Returns the scale of the DequantizeLinear that makes a value, if one does."""
    node = _dequantizer(value)
    return None if node is None else node.inputs[1]
