"""The integer types of ONNX: which versions have them, and how codes are packed into them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_SINCE: Final = {
    ir.DataType.INT2: 25,
    ir.DataType.UINT2: 25,
    ir.DataType.INT4: 21,
    ir.DataType.UINT4: 21,
    ir.DataType.INT16: 21,
    ir.DataType.UINT16: 21,
}
"""The first opset in which QuantizeLinear and DequantizeLinear take a type."""

_IR_VERSION: Final = {
    ir.DataType.INT2: 13,
    ir.DataType.UINT2: 13,
    ir.DataType.INT4: 10,
    ir.DataType.UINT4: 10,
    ir.DataType.FLOAT8E5M2: 9,
}
"""The oldest IR version that has a type."""


def grid_type(width: int, *, signed: bool) -> ir.DataType:
    """Returns the integer type that has exactly a width of 2, 4, 8 or 16 bits."""
    return ir.DataType[f"{'INT' if signed else 'UINT'}{width}"]


def quantizer_opset(data_type: ir.DataType) -> int:
    """Returns the oldest opset whose QuantizeLinear and DequantizeLinear take a type.

    It is 13 for the types that opset 13 has.
    """
    return _SINCE.get(data_type, 13)


def ir_version(data_type: ir.DataType) -> int:
    """Returns the oldest IR version that has a type; it is 8 for the types that version 8 has."""
    return _IR_VERSION.get(data_type, 8)


def pack(
    codes: npt.NDArray[np.integer[Any]], data_type: ir.DataType, name: str
) -> ir.TensorProtocol:
    """Makes a tensor of codes.

    Args:
        codes: The codes, of any shape; they must fit into the type.
        data_type: An integer type of 2, 4, 8 or 16 bits.
        name: Name of the tensor.

    Returns:
        A tensor of the shape of ``codes``. Below 8 bits several codes share a byte, the first of
        them in the lowest bits.
    """
    width = data_type.bitwidth
    if width >= 8:
        return ir.Tensor(codes.astype(data_type.numpy()), name=name)
    per_byte = 8 // width
    flat = codes.reshape(-1).astype(np.int8).view(np.uint8) & np.uint8(2**width - 1)
    padded = np.pad(flat, (0, -len(flat) % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    packed = np.bitwise_or.reduce(padded << shifts, axis=1).astype(np.uint8)
    return ir.PackedTensor(packed, data_type, shape=codes.shape, name=name)
