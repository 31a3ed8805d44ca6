"""Finds the matrix products that onnxruntime runs with a packed weight, in its kernel MatMulNBits.

onnxruntime makes that kernel of DequantizeLinear and a MatMul or Gemm that reads the weight as
``[summed, outputs]``. What is refused here was found to stay float, or to compute wrong values, in
onnxruntime 1.31.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.layouts import permutation, transposed_views
from onnx_cgmq.graph.mac_operators import is_plain_product
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op
from onnx_cgmq.graph.operators import mac_spec

_TURNED: Final = (1, 0)
_COLUMNS_OF_2_BITS: Final = 4
"""INT2 codes share a byte by fours, and the kernel takes rows to end with a byte."""

FAST_BLOCKS: Final = (128, 64, 32)
"""The block sizes for which there are fast kernels of every width, the fastest first. Those of INT2
in blocks of 16 and 256 take several times as long as a float product."""


@dataclass(frozen=True)
class PackedReaders:
    """The matrix products that read a weight packed.

    Attributes:
        nodes: The nodes; the weight is their input 1.
        turned: Whether they read the weight as ``[outputs, summed]``, so that it is to be stored
            the other way round.
    """

    nodes: tuple[ir.Node, ...]
    turned: bool

    @property
    def summed_axis(self) -> int:
        """The axis of the weight, as the float model has it, that is summed over."""
        return 1 if self.turned else 0


def packed_readers(weight: ir.Value, shape: Sequence[int]) -> PackedReaders | str:
    """Finds the products that read a weight, if all of them can read it packed.

    Args:
        weight: The weight, or its quantized value.
        shape: Its shape.

    Returns:
        The products, or the reason why not all readers can.
    """
    if len(shape) != 2:
        return f"it has {len(shape)} dimensions, and packed weights have 2"
    found: dict[ir.Node, bool] = {}
    for view, path in transposed_views(weight):
        turned = bool(path) and permutation(path, 2) == _TURNED
        if view.is_graph_output():
            return f"'{view.name}' is an output of the model"
        for use in view.uses():
            if standard_op(use.node) == "Transpose":
                continue
            reason = _why_not(use.node, use.idx)
            if reason:
                return reason
            found[use.node] = turned != bool(int_attribute(use.node, "transB", 0))
    if len(set(found.values())) != 1:
        return "its readers want it in different layouts" if found else "no node multiplies it"
    return PackedReaders(tuple(found), next(iter(found.values())))


def why_no_blocks(weight: ir.Value, shape: Sequence[int], block: int) -> str:
    """Says why a weight can't have a range for each block; empty if it can.

    Args:
        weight: The weight, whose readers have no quantizers yet.
        shape: Its shape.
        block: Elements in a block.
    """
    readers = packed_readers(weight, shape)
    if isinstance(readers, str):
        return readers
    summed = shape[readers.summed_axis]
    if summed % block:
        return f"{summed} elements are summed over, which are no whole blocks of {block}"
    if summed == block or 1 in shape:
        return "a block would be a whole channel, or there is only one channel"
    return ""


def kernel_block(summed: int) -> int:
    """The block size with which a weight without blocks of its own is multiplied fastest.

    Args:
        summed: How many of its elements are summed over.
    """
    return next((size for size in FAST_BLOCKS if size <= summed), FAST_BLOCKS[-1])


def why_not_in_type(data_type: ir.DataType, outputs: int, block: int | None) -> str:
    """Says why a weight can't be packed in a type; empty if it can.

    Args:
        data_type: The type of its codes.
        outputs: Its number of output channels.
        block: The size of its blocks, if these have ranges of their own.
    """
    if data_type not in (ir.DataType.INT2, ir.DataType.INT4, ir.DataType.INT8):
        return f"there is no kernel for packed {data_type.name}"
    if data_type is ir.DataType.INT2 and outputs % _COLUMNS_OF_2_BITS:
        return (
            f"onnxruntime computes wrong values of INT2 weights unless their output channels are a "
            f"multiple of {_COLUMNS_OF_2_BITS}, and there are {outputs}"
        )
    if data_type is ir.DataType.INT2 and block is not None and block not in FAST_BLOCKS:
        return f"the kernel of INT2 in blocks of {block} is slower than a float product"
    return ""


def _why_not(node: ir.Node, index: int) -> str:
    """Says why a node can't read a weight packed; empty if it can."""
    if mac_spec(node) is None or standard_op(node) not in ("MatMul", "Gemm"):
        return f"{called(node)} reads it, and only MatMul and Gemm read packed weights"
    if index != 1:
        return f"{called(node)} has it as its first factor"
    if not is_plain_product(node):
        return f"{called(node)} has factors, or turns its first operand"
    return ""
