"""Which weights meet in one INT16 sum of an integer kernel, on x86 processors without VNNI.

The instruction ``vpmaddubsw`` multiplies UINT8 activations by INT8 weights, adds the products of
two neighbours, and saturates silently where the sum leaves INT16. Only two weights of the same sign
can do that together; one alone can't (127 * 255 fits). Which weights are neighbours is as measured
in docs/benchmarks/saturation.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.gating.image_channels import lacks_a_channel
from onnx_cgmq.graph.layouts import permutation, transposed_views
from onnx_cgmq.graph.nodes import int_attribute, standard_op
from onnx_cgmq.graph.operators import mac_spec

_PAIR_LIMIT: Final = 2**15 - 1
"""The largest sum of two products that INT16 holds."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SumOrder:
    """The order in which an integer kernel sums the products of a weight.

    Attributes:
        rows: The axes of the weight that are not summed: one sum is made for each of their places.
        summed: The axes that are summed, the one whose elements follow each other last.
        zeros: How many zeros the kernel sums behind each run of elements of the last axis.
    """

    rows: tuple[int, ...]
    summed: tuple[int, ...]
    zeros: int = 0

    def largest_pairs(self, values: Array) -> Array:
        """Returns the largest sum of the magnitudes of two neighbours with the same sign.

        Args:
            values: The weight, or its codes.

        Returns:
            The largest sum of every row, 0 where no two neighbours have the same sign, in the shape
            of the axes :attr:`rows`.
        """
        ordered = values.transpose(*self.rows, *self.summed)
        if self.zeros:
            ordered = np.pad(ordered, [(0, 0)] * (ordered.ndim - 1) + [(0, self.zeros)])
        rows = ordered.shape[: len(self.rows)]
        flat = ordered.reshape(*rows, -1)
        paired = flat.shape[-1] // 2 * 2  # the last of an odd number is alone
        first, second = flat[..., 0:paired:2], flat[..., 1:paired:2]
        largest = np.zeros(rows, values.dtype)
        for both, reduce in ((np.minimum, 1), (np.maximum, -1)):
            same_sign = reduce * both(first, second) > 0
            sums = np.where(same_sign, reduce * (first + second), 0)
            largest = np.maximum(largest, sums.max(axis=-1, initial=0))
        return np.asarray(largest)

    def seen_through(self, axes: tuple[int, ...]) -> SumOrder:
        """Returns the order for the stored weight of which a node reads a transposed view.

        Args:
            axes: The axis of the stored weight, for every axis that the node reads.
        """
        return SumOrder(
            tuple(axes[axis] for axis in self.rows),
            tuple(axes[axis] for axis in self.summed),
            self.zeros,
        )


def sum_order(node: ir.Node, shape: tuple[int, ...]) -> SumOrder | None:
    """Returns the order in which the integer kernel of a node sums the products of its weight.

    Args:
        node: A Conv, Gemm or MatMul whose second input is the weight; or a QLinearConv.
        shape: The shape of the weight, as the node reads it.

    Returns:
        The order; ``None`` if the kernel adds products one by one in INT32, as that of a depthwise
        Conv does.
    """
    rank = len(shape)
    if standard_op(node) in ("Conv", "QLinearConv"):
        depthwise = shape[1] == 1 and shape[0] == int_attribute(node, "group", 1)
        zeros = 1 if lacks_a_channel(node, shape) else 0
        return None if depthwise else SumOrder((0,), (*range(2, rank), 1), zeros)  # channels last
    if rank == 1:
        return SumOrder((), (0,))
    if standard_op(node) == "Gemm" and int_attribute(node, "transB", 0):
        return SumOrder((0,), (1,))
    return SumOrder((*range(rank - 2), rank - 1), (rank - 2,))


def weight_sums(
    weight: ir.Value, shape: tuple[int, ...], integer: Collection[ir.Node]
) -> Iterator[tuple[SumOrder, ir.Value]]:
    """Lists the sums in which integer kernels add products of a weight in pairs.

    Args:
        weight: The quantized weight.
        shape: The shape of the stored weight.
        integer: The nodes that run in integers.

    Yields:
        For each node that reads the weight, the order of its sums, in axes of the stored weight,
        and the activation that the weight is multiplied with.
    """
    for view, path in transposed_views(weight):
        axes = permutation(path, len(shape))
        seen = tuple(shape[axis] for axis in axes)
        for node, read in view.uses():
            operator = mac_spec(node) if node in integer else None
            order = sum_order(node, seen) if operator is not None else None
            if operator is None or order is None:
                continue
            for index, other in operator.operand_values(node):
                if index != read:
                    yield order.seen_through(axes), other


def largest_pair(largest_activation: int) -> int:
    """Returns the largest sum of the magnitudes of two codes whose products can't saturate.

    Args:
        largest_activation: The largest UINT8 code that the weight is multiplied with.
    """
    return _PAIR_LIMIT // max(1, largest_activation)
