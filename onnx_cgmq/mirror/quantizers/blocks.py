"""The gated quantizer of a matrix whose channels have a range for each block of neighbours."""

from __future__ import annotations

from torch import Tensor

from onnx_cgmq.contract.bits import GridForm
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers.dynamic import DynamicQuantizer
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer


class BlockQuantizer(GatedQuantizer):
    """Quantizes a matrix in the shape to which the ranges of its blocks broadcast."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantizes a matrix, as :meth:`GatedQuantizer.forward` does."""
        y, step = super().forward(x.reshape(self.spec.view_shape))
        return y.reshape(x.shape), step


def quantizer_of(
    spec: QuantizerSpec, low: Tensor | None, high: Tensor, gate: Tensor
) -> GatedQuantizer:
    """Makes the quantizer of a tensor; the arguments are those of :class:`GatedQuantizer`."""
    if spec.form is GridForm.DYNAMIC:
        return DynamicQuantizer(spec, low, high, gate)
    kind = GatedQuantizer if spec.block is None else BlockQuantizer
    return kind(spec, low, high, gate)


def of_elements(spec: QuantizerSpec, ends: Tensor) -> Tensor:
    """Repeats what blocks have for their elements, so that it broadcasts to the tensor.

    Args:
        spec: The quantizer.
        ends: Numbers of ``spec.range_item_shape``, such as steps; without blocks they are returned
            as they are.
    """
    return ends if spec.block is None else ends.expand(spec.view_shape).reshape(spec.shape)
