"""Finds weights whose channels differ so much that one range for all leaves most few codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.operators import mac_spec

_MOST: Final = 32.0
"""How many times as far as the channel in the middle the widest may reach without a note: half of
the channels then have at most 4 of the 127 codes on each side at 8 bits."""


def uneven_weights(gated: ir.Model) -> Iterator[str]:
    """Writes a note on the weights with one range whose channels need ranges of their own.

    Args:
        gated: The gated model.
    """
    found = {
        spec.tensor: ratio
        for node, spec in quantizer_nodes(gated).values()
        if spec.role is Role.WEIGHT and not spec.has_channels and (ratio := _ratio(node)) > _MOST
    }
    if not found:
        return
    worst = max(found, key=lambda name: found[name])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    yield (
        f"weight '{worst}'{more} has one range for all channels, but one channel reaches "
        f"{found[worst]:,.0f} times as far as half of the others, which so get few codes: give "
        "each channel its own range with weight_ranges = 'channel', as --target ort-cpu does"
    )


def _ratio(quantizer: ir.Node) -> float:
    """How far the widest channel reaches over the one in the middle; 0 without channels."""
    weight, uses = quantizer.inputs[0], quantizer.outputs[0].uses()
    if weight is None or weight.const_value is None or not uses:
        return 0.0
    node, index = next(iter(uses))
    spec, rank = mac_spec(node), len(weight.const_value.shape)
    axis = None if spec is None else spec.output_axis(node, index, rank)
    if axis is None or not weight.const_value.size:
        return 0.0
    others = tuple(i for i in range(rank) if i != axis)
    with reading(weight.const_value) as values:
        reach = np.maximum(values.max(axis=others), -values.min(axis=others))
    reach = reach[reach > 0]  # pruned channels need no codes
    return float(reach.max() / np.median(reach)) if reach.size else 0.0
