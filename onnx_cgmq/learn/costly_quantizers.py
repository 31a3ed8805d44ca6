"""Finds carried quantizers that cost more accuracy than their integer kernels are worth.

No multiply-accumulate asks for them and no bound counts them, but all channels of what they round
share 256 codes. In most networks they hardly matter; in some, one of them costs more than all
widths that were bought.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import numpy as np
import torch

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.calibrate import calibrate_activations
from onnx_cgmq.learn.distance import distance
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.torch_state import plain_torch

_CALIBRATED: Final = 32
_MEASURED: Final = 16
_BATCH_SIZE: Final = 8
"""Samples that ranges are fitted to, samples on which errors are measured, and samples at once. Our
choice, for time."""

_SHARE: Final = 0.5
"""What carried quantizers may cost at most, as a share of what those of the activations cost that
are multiplied. Our choice."""

_HARMLESS: Final = 1e-3
"""An error of the outputs that nobody notices, relative to their mean square. Our choice: 30 dB."""


@plain_torch()
@torch.no_grad()
def costly_quantizers(mirror: Mirror, operands: Collection[str], data: Samples) -> tuple[str, ...]:
    """Names the carried quantizers that should be left out.

    Errors are those of the outputs at 8 bits, with other quantizers left out; they add up about.
    The largest are left out until the carried quantizers together cost half as much as those of the
    activations that are multiplied, or next to nothing. Weights do not count here, because their
    rounding is learned.

    Args:
        mirror: The mirror of the gated model. Its activations are calibrated, and its gates set
            to 8 bits.
        operands: Names of the tensors that are multiplied and accumulated.
        data: The samples, of which a few are used that are evenly spread.

    Returns:
        The names, the costliest first.
    """
    activations = mirror.tensors_of(Role.ACTIVATION)
    carried = [name for name in activations if name not in operands]
    if not carried:
        return ()
    calibrate_activations(mirror, data, samples=_CALIBRATED, batch_size=_BATCH_SIZE)
    _at_most_8_bits(mirror)
    order = np.linspace(0, len(data) - 1, min(_MEASURED, len(data))).astype(np.int64)
    batches = [tensors(b.inputs) for b in data.batches(min(_BATCH_SIZE, len(order)), order=order)]
    with mirror.unquantized():
        wanted = [mirror(batch) for batch in batches]

        def error(names: Iterable[str]) -> float:
            """The error of the outputs if only these are quantized."""
            for name in names:
                mirror.quantizers[name].bypassed = False
            errors = [
                distance(mirror(batch), target, target)
                for batch, target in zip(batches, wanted, strict=True)
            ]
            for name in names:
                mirror.quantizers[name].bypassed = True
            return float(torch.stack(errors).mean())

        needed = error([name for name in activations if name in operands])
        allowed = max(_SHARE * needed, _HARMLESS)
        if error(carried) <= allowed:
            return ()
        alone = {name: error([name]) for name in carried}
    left_out = []
    for name in sorted(carried, key=lambda name: -alone[name]):
        if sum(alone[name] for name in carried if name not in left_out) <= allowed:
            break
        left_out.append(name)
    return tuple(left_out)


def _at_most_8_bits(mirror: Mirror) -> None:
    """Sets every gate to the widest width that an integer kernel takes, if it has one."""
    for quantizer in mirror.quantizers.values():
        widths = [w for w in quantizer.spec.ladder.quantized if w <= INTEGER_KERNEL_BITS]
        if widths:
            chosen = np.full(quantizer.spec.gate_shape, max(widths), dtype=np.int64)
            quantizer.set_gate(quantizer.gate_for(chosen))
