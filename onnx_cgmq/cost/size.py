"""Size: the bits that weights and biases take in the written file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, Role
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.graph.layouts import constants_read
from onnx_cgmq.graph.lower.storage import NEWEST_OPSET, weight_type
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec


def stored_width(role: Role, widest: int) -> int:
    """Bits per element in the file.

    A weight is one integer tensor on the grid of its widest entry; pruned weights take the
    narrowest type; types that the installed onnxruntime can't load are not written. A bias is INT32
    or float: its codes have the step of the accumulator, whatever its width.
    """
    if role is Role.BIAS or widest == FLOAT_BITS:
        return FLOAT_BITS
    return weight_type(widest, NEWEST_OPSET).bitwidth


def stored_bits(
    spec: QuantizerSpec, widths: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> int:
    """Bits that a weight or bias takes in the file; 0 for activations."""
    if spec.role is Role.ACTIVATION:
        return 0
    return int(np.prod(spec.shape, dtype=np.int64)) * stored_width(spec.role, int(widths.max()))


def tensor_bytes(specs: Mapping[str, QuantizerSpec], widths: Widths) -> dict[str, int]:
    """Bytes of every weight and bias; tensors without widths are float."""
    full = np.array(FLOAT_BITS, dtype=np.int64)
    return {
        name: -(-stored_bits(spec, widths.get(name, full)) // 8)
        for name, spec in specs.items()
        if spec.role is not Role.ACTIVATION
    }


def weight_bytes(specs: Mapping[str, QuantizerSpec], widths: Widths) -> int:
    """Bytes of all weights and biases."""
    return sum(tensor_bytes(specs, widths).values())


def float_bytes(specs: Mapping[str, QuantizerSpec]) -> int:
    """Bytes of all weights and biases of the float model."""
    return weight_bytes(specs, {})


def ungated_bytes(model: ir.Model) -> int:
    """Bytes of the weights, biases and tables of a gated graph that have no quantizer."""
    constants = (value.const_value for value in constants_read(model))
    bits = (tensor.size * int(tensor.dtype.bitwidth) for tensor in constants if tensor is not None)
    return sum(-(-count // 8) for count in bits)
