"""Widths that integer kernels take: 8 bits at most, and one width where a weight is one tensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec

_Widths = npt.NDArray[np.int64]


def for_one_integer_tensor(spec: QuantizerSpec, widths: _Widths, always: bool) -> _Widths:
    """Narrows widths to 8 bits at most, if ``always`` or if a weight has gates of several widths.

    Biases stay as they are, and so do tensors whose ladder lacks 8 bits.
    """
    if spec.role is Role.BIAS or INTEGER_KERNEL_BITS not in spec.ladder.widths:
        return widths
    mixed = spec.role is Role.WEIGHT and len(np.unique(widths)) > 1
    return np.asarray(np.minimum(widths, INTEGER_KERNEL_BITS)) if always or mixed else widths
