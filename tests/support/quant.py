"""QONNX's ``Quant`` in numpy, and as an operator of onnx's reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


def quant(x, scale, zero_point, bit_width, signed, narrow) -> np.ndarray:
    """``Quant`` with rounding half to even, float32, as QONNX's documentation has it."""
    if signed:
        least, most = -(2 ** (bit_width - 1)) + int(narrow), 2 ** (bit_width - 1) - 1
    else:
        least, most = 0, 2**bit_width - 1 - int(narrow)
    steps = np.asarray(x, np.float32) / np.float32(scale) + np.float32(zero_point)
    codes = np.round(np.clip(steps, np.float32(least), np.float32(most)))
    return ((codes - np.float32(zero_point)) * np.float32(scale)).astype(np.float32)


class Quant(OpRun):
    op_domain = "qonnx.custom_op.general"

    def _run(self, x, scale, zeropt, bitwidth, signed=1, narrow=1, rounding_mode="ROUND"):
        assert rounding_mode == "ROUND"
        return (quant(x, scale, zeropt, int(bitwidth), signed, narrow),)


def run_reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """First output of a model in onnx's reference evaluator."""
    return ReferenceEvaluator(model, new_ops=[Quant]).run(None, inputs)[0]
