"""Keeps steps of weights so large that the codes of biases stay within INT32.

An integer kernel adds a bias as an INT32 code, whose unit is the step of the activation times that
of the weight. If all weights of a channel are nearly zero, their step would be so small that the
bias leaves INT32. Next to such a bias the products hardly matter, so a larger step loses nothing.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role, intervals
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP, INT32_LIMIT
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_ROOM: Final = 16
"""How much steps may shrink and biases grow while they learn, as a factor. Our choice."""


@torch.no_grad()
def leave_room_for_biases(mirror: Mirror) -> None:
    """Sets the smallest ranges of weights, which follow from biases and ranges of activations.

    Args:
        mirror: A mirror whose activations are calibrated.
    """
    names = {node: name for name, (node, _) in quantizer_nodes(mirror.model).items()}
    for node in mirror.model.graph:
        if node.op_type != ACCUMULATOR_OP:
            continue
        makers = [value.producer() for value in node.inputs if value is not None]
        bias, x, weight = (None if maker is None else names.get(maker) for maker in makers)
        if bias is None or x is None or weight is None:
            continue
        quantizer = mirror.quantizers[weight]
        if quantizer.spec.role is Role.WEIGHT:
            largest = _largest_bias(mirror.value_parameters[bias], mirror.quantizers[x], quantizer)
            least = _ROOM * largest / INT32_LIMIT / _smallest_step(mirror.quantizers[x])
            quantizer.set_smallest_step(least)


def _largest_bias(bias: Tensor, x: GatedQuantizer, weight: GatedQuantizer) -> Tensor:
    """How large the bias of any channel may become while it is learned.

    As large as any bias of the layer is, and as a product of its largest activation with its
    largest weight: the bias of a pruned channel, whose weights and bias are zero, grows too.
    """
    product = torch.maximum(x.high.amax(), -x.low.amin()) * weight.high.amax()
    return torch.maximum(bias.detach().abs().amax(), product)


def _smallest_step(quantizer: GatedQuantizer) -> Tensor:
    """Returns the smallest step of an activation among the widths that have integer kernels."""
    spec = quantizer.spec
    steps = [
        (quantizer.high[i] - quantizer.low[i]).amin() / intervals(width, spec.form)
        for i, width in enumerate(spec.ladder.quantized)
        if width <= INTEGER_KERNEL_BITS
    ]
    return torch.stack(steps).amin() if steps else torch.tensor(torch.inf)
