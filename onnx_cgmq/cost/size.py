"""Size: the bytes that weights, biases and tables take in the written file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, Role
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec
from onnx_cgmq.graph.layouts import constants_read
from onnx_cgmq.graph.lower.storage import NEWEST_OPSET, weight_type


@dataclass(frozen=True)
class Storage:
    """What decides the size of a written model besides the widths.

    Attributes:
        opset: Version of the standard operators: older ones lack INT2 or INT4.
        ungated: Bytes of weights, biases and tables that have no quantizer.
    """

    opset: int = NEWEST_OPSET
    ungated: int = 0

    @classmethod
    def of(cls, model: ir.Model) -> Storage:
        """That of a gated model."""
        tensors = (value.const_value for value in constants_read(model))
        sizes = (_whole_bytes(t.size * int(t.dtype.bitwidth)) for t in tensors if t is not None)
        return cls(model.opset_imports[""], sum(sizes))

    def stored_bits(self, spec: QuantizerSpec, widths: npt.NDArray[np.int64]) -> int:
        """Bits that a weight or bias takes; 0 for activations.

        A weight is one integer tensor on the grid of its widest entry; pruned weights take the
        narrowest type; types that the installed onnxruntime can't load are not written. A bias is
        INT32 or float: its codes have the step of the accumulator, whatever its width.
        """
        if spec.role is Role.ACTIVATION:
            return 0
        width, widest = FLOAT_BITS, int(widths.max())
        if spec.role is Role.WEIGHT and widest < FLOAT_BITS:
            width = weight_type(widest, self.opset).bitwidth
        return int(np.prod(spec.shape, dtype=np.int64)) * width

    def tensor_bytes(self, specs: Mapping[str, QuantizerSpec], widths: Widths) -> dict[str, int]:
        """Bytes of every weight and bias with a quantizer; those without widths are float."""
        full = np.array(FLOAT_BITS, dtype=np.int64)
        return {
            name: _whole_bytes(self.stored_bits(spec, widths.get(name, full)))
            for name, spec in specs.items()
            if spec.role is not Role.ACTIVATION
        }

    def total_bytes(self, specs: Mapping[str, QuantizerSpec], widths: Widths) -> int:
        """Bytes of all weights, biases and tables."""
        return sum(self.tensor_bytes(specs, widths).values()) + self.ungated


def _whole_bytes(bits: int) -> int:
    return -(-bits // 8)
