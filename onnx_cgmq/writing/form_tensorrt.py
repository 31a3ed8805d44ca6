"""The form ``tensorrt``: INT8 by TensorRT's rules for explicit quantization.

* A weight is an INT8 initializer with one scale for each channel, which DequantizeLinear reads.
* An activation is a QuantizeLinear and a DequantizeLinear with one scale, in INT8.
* All zero points are 0, and there is no UINT8: an activation that can't be negative has the codes
  0 to 127.
* A bias is a float initializer, with the values that an integer kernel adds.
* A tensor of 32 bits stays float.

Codes go from -127 to 127. A Clip keeps activations that can be negative from the code -128.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Role, code_range
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.graph.nonnegative import nonnegative_values
from onnx_cgmq.writing.form_native import write_native_weight
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.weights import write_float_bias

_BITS: Final = 8


def write_tensorrt(tensors: GatedTensors) -> Mapping[str, KernelChoice]:
    """Replaces every gated quantizer by the form ``tensorrt``, in place.

    Returns:
        No kernels, because this form is not for onnxruntime.

    Raises:
        ConfigError: A tensor has another width than 8 or 32 bits, several of them, or a grid with
            a zero point.
    """
    for tensor in tensors.of_role(Role.WEIGHT, Role.ACTIVATION):
        _check(tensor)
    nonnegative = nonnegative_values(tensors.graph)
    tensors.write_biases(write_float_bias)
    tensors.write(Role.WEIGHT, write_native_weight)
    tensors.write(Role.ACTIVATION, partial(_write_activation, nonnegative))
    return {}


def _check(tensor: GatedTensor) -> None:
    plan = tensor.plan
    if plan.is_float:
        return
    if not plan.is_uniform or plan.grid_width != _BITS:
        widths = ", ".join(str(width) for width in np.unique(plan.widths))
        raise ConfigError(
            f"tensor '{plan.name}' has {widths} bits, but the form 'tensorrt' has {_BITS} and "
            f"{FLOAT_BITS} only; choose the target 'tensorrt', or another form"
        )
    if not plan.form.is_symmetric or (plan.role is Role.ACTIVATION and plan.step.size > 1):
        raise ConfigError(
            f"activation '{plan.name}' has a zero point, unsigned codes or a step for each "
            "channel, which the form 'tensorrt' has not; insert gates for this form, as the "
            "target 'tensorrt' does"
        )


def _write_activation(
    nonnegative: Collection[ir.Value], emit: NodeWriter, tensor: GatedTensor
) -> ir.Value:
    plan, x = tensor.plan, tensor.source
    if plan.is_float:
        return x
    floats = ir.DataType.FLOAT
    step = np.float32(plan.step.reshape(()))
    parameters = [emit.constant("scale", step), emit.constant("zero_point", np.int8(0))]
    if x not in nonnegative:
        ends = [np.float32(code) * step for code in code_range(_BITS, plan.form)]
        limits = [emit.constant(f"clip_{i}", end) for i, end in enumerate(ends)]
        x = emit.node("Clip", [x, *limits], "clipped", floats, x.shape)
    codes = emit.node("QuantizeLinear", [x, *parameters], "codes", ir.DataType.INT8, x.shape)
    return emit.node("DequantizeLinear", [codes, *parameters], "quantized", floats, x.shape)
