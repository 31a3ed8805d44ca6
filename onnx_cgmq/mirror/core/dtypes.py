"""ONNX element types in torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.graph.files.external import reading

_DataType = ir.DataType

TORCH_DTYPES: Final[Mapping[ir.DataType, torch.dtype]] = {
    _DataType.FLOAT: torch.float32,
    _DataType.DOUBLE: torch.float64,
    _DataType.FLOAT16: torch.float16,
    _DataType.BFLOAT16: torch.bfloat16,
    _DataType.BOOL: torch.bool,
    _DataType.INT8: torch.int8,
    _DataType.INT16: torch.int16,
    _DataType.INT32: torch.int32,
    _DataType.INT64: torch.int64,
    _DataType.UINT8: torch.uint8,
    _DataType.UINT16: torch.uint16,
    _DataType.UINT32: torch.uint32,
    _DataType.UINT64: torch.uint64,
    # Torch has no types narrower than a byte, so each narrow code takes a byte.
    _DataType.INT4: torch.int8,
    _DataType.UINT4: torch.uint8,
    _DataType.INT2: torch.int8,
    _DataType.UINT2: torch.uint8,
}
"""The torch type that holds each supported ONNX element type."""

CAST_ONLY: Final = MappingProxyType({_DataType.FLOAT8E5M2: np.float16})
"""Types of constants that only Cast may read, such as short scales, and their numpy types."""

INTEGER_LIMITS: Final[Mapping[ir.DataType, tuple[int, int]]] = {
    _DataType.INT2: (-2, 1),
    _DataType.UINT2: (0, 3),
    _DataType.INT4: (-8, 7),
    _DataType.UINT4: (0, 15),
    _DataType.INT8: (-128, 127),
    _DataType.UINT8: (0, 255),
    _DataType.INT16: (-32768, 32767),
    _DataType.UINT16: (0, 65535),
    _DataType.INT32: (-(2**31), 2**31 - 1),
}
"""The smallest and largest code of the integer types that quantizers write."""

FIRST_NARROW_OPSET: Final = 21
"""The first opset with integer types of less than 8 bits."""

UNSIGNED_WIDE: Final = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Types that torch stores, but with which it hardly computes; see :func:`computable`."""


def is_supported(dtype: ir.DataType | None) -> bool:
    """Whether the mirror can hold tensors of a type; an unknown type is taken to be supported."""
    return dtype is None or dtype in TORCH_DTYPES


def unambiguous_type(tensor: Tensor, opset: int) -> ir.DataType:
    """The ONNX type of a tensor for which the graph gives no type.

    Raises:
        ValueError: If the tensor holds bytes, which may be codes of 8 bits or narrower ones.
    """
    found = [onnx_type for onnx_type, dtype in TORCH_DTYPES.items() if dtype is tensor.dtype]
    if opset < FIRST_NARROW_OPSET:
        found = found[:1]
    if len(found) != 1:
        names = ", ".join(onnx_type.name for onnx_type in found)
        raise ValueError(
            f"an input may have any of the types {names}; infer types first, see prepare()"
        )
    return found[0]


def computable(tensor: Tensor) -> Tensor:
    """Converts a tensor to a type that torch computes with: int64 for uint16, uint32 and uint64.

    Sums and products of uint64 are right in int64 (two's complement). Comparing or dividing values
    of 2**63 and more is not.
    """
    return tensor.to(torch.int64) if tensor.dtype in UNSIGNED_WIDE else tensor


_SIGNED: Final = MappingProxyType(
    {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
)
_SIGN_BIT: Final = -(2**63)


def movable(tensor: Tensor) -> Tensor:
    """Views a tensor, without a copy, as a type whose elements torch can select and move.

    :func:`from_movable` undoes this.
    """
    return tensor.view(_SIGNED[tensor.dtype]) if tensor.dtype in UNSIGNED_WIDE else tensor


def from_movable(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Views a tensor that came from :func:`movable` as its own type ``dtype`` again."""
    return tensor.view(dtype) if dtype in UNSIGNED_WIDE else tensor


def comparable(tensor: Tensor) -> Tensor:
    """Converts a tensor to a type that torch compares right: int64 for uint16, uint32 and uint64.

    The sign bit of uint64 is flipped, which keeps the order. :func:`from_comparable` undoes this.
    """
    if tensor.dtype is torch.uint64:
        return tensor.view(torch.int64) ^ _SIGN_BIT
    return computable(tensor)


def from_comparable(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts a tensor that came from :func:`comparable` back to its own type ``dtype``."""
    return (tensor ^ _SIGN_BIT).view(dtype) if dtype is torch.uint64 else tensor.to(dtype)


def to_torch(tensor: ir.TensorProtocol) -> Tensor:
    """Copies an ONNX tensor to a torch tensor of the same shape.

    Raises:
        TypeError: If torch has no type for it.
    """
    if tensor.dtype in CAST_ONLY:
        return torch.from_numpy(tensor.numpy().astype(CAST_ONLY[tensor.dtype]))
    if tensor.dtype not in TORCH_DTYPES:
        raise TypeError(f"no tensor of type {tensor.dtype.name} in torch")
    dtype = TORCH_DTYPES[tensor.dtype]
    with reading(tensor) as array:
        if tensor.dtype is _DataType.BFLOAT16:
            return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
        if tensor.dtype in INTEGER_LIMITS and tensor.dtype.bitwidth < 8:
            array = array.astype(np.int8 if dtype is torch.int8 else np.uint8)
        return torch.from_numpy(np.array(array, order="C"))
