"""How a plan can be written into ONNX."""

from __future__ import annotations

from enum import Enum


class Form(str, Enum):
    """The way in which quantized tensors are written.

    ORT: What stock onnxruntime loads and fuses into integer kernels.
    NATIVE: QuantizeLinear and DequantizeLinear in the types of the learned widths (INT2, UINT2,
        INT4, UINT4, ...), for compilers that take them.
    QONNX: ``Quant`` nodes of the ``qonnx.custom_op.general`` domain, for FPGA flows.
    """

    ORT = "ort"
    NATIVE = "native"
    QONNX = "qonnx"
