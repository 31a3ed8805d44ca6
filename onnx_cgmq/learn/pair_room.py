"""Keeps 8-bit steps of weights so large that no pair of products saturates, and no larger.

The integer kernels of x86 processors without VNNI add the products of two neighbours in INT16
(:mod:`~onnx_cgmq.gating.summed_pairs`). A step for each channel that just holds its largest pair of
neighbours costs little: most channels have a few such pairs at most. The weight can then be written
as INT8, which is the fast form on all processors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Granularity, GridForm, Role, code_range
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.predicted_kernels import integer_nodes
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.gating.summed_pairs import SumOrder, largest_pair, weight_sums
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.writing.activations import largest_uint8_code

FloatArray = npt.NDArray[np.float32]

_LARGEST_SUM: Final = 2 * code_range(INTEGER_KERNEL_BITS, GridForm.SYMMETRIC)[1]
"""The largest sum of two codes of 8 bits."""

_ABOVE: Final = 1 + 2**-16
"""A factor of steps that outweighs the rounding errors of float32.

If the sum of two weights is less than 128 steps, that of their codes is less than 129.
"""


@torch.no_grad()
def leave_room_for_pairs(mirror: Mirror, *, spare: int = 0, only_grow: bool = False) -> None:
    """Sets the smallest 8-bit steps of weights, which follow from weights and present widths.

    Weights with a width for each element get none: on their nested grids, codes of 2 and 4 bits are
    multiples of 85 and 17, so hardly any step would do. If theirs can saturate, they are written as
    UINT8.

    Args:
        mirror: A mirror. Call this again whenever its weights or widths have changed.
        spare: How many steps the sum of a pair may still grow, while rounding is learned.
        only_grow: Leave steps that are larger than needed as they are. Codes that were learned on
            a step are lost on another.
    """
    nodes = {name: node for name, (node, _) in quantizer_nodes(mirror.model).items()}
    widths = {name: int(quantizer.widths.max()) for name, quantizer in mirror.quantizers.items()}
    largest = {
        nodes[name].outputs[0]: largest_uint8_code(quantizer.spec.form, widths[name])
        for name, quantizer in mirror.quantizers.items()
        if quantizer.spec.role is Role.ACTIVATION and widths[name] <= INTEGER_KERNEL_BITS
    }
    integer = integer_nodes(mirror.model, widths)
    for name, quantizer in mirror.quantizers.items():
        spec, values = quantizer.spec, mirror.value_parameter(name)
        if spec.role is not Role.WEIGHT or INTEGER_KERNEL_BITS not in spec.ladder.widths:
            continue
        if spec.granularity is Granularity.ELEMENT or values is None:
            continue
        step = np.zeros(spec.range_item_shape, np.float32)
        for order, activation in weight_sums(nodes[name].outputs[0], spec.shape, integer):
            limit = largest_pair(largest.get(activation, 0))
            if limit < _LARGEST_SUM:
                pairs = order.largest_pairs(values.detach().cpu().numpy())
                least = _by_range(spec, order, pairs) * np.float32(_ABOVE / (limit - spare))
                step = np.asarray(np.maximum(step, least))
        quantizer.set_smallest_pair_step(torch.from_numpy(step), only_grow=only_grow)


def _by_range(spec: QuantizerSpec, order: SumOrder, pairs: FloatArray) -> FloatArray:
    """Returns the largest pair for each range of a weight, of the largest ones of its sums."""
    others = tuple(i for i, axis in enumerate(order.rows) if axis != spec.axis)
    return np.asarray(pairs.max(axis=others), np.float32).reshape(spec.range_item_shape)
