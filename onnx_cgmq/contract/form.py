"""The forms in which a plan can be written into ONNX."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from onnx_cgmq.contract.identifiers import FORM_KEY

if TYPE_CHECKING:  # settings import this file, and must not load onnx_ir
    import onnx_ir as ir


class Form(str, Enum):
    """The way in which quantized tensors are written.

    ORT: Nodes that stock onnxruntime loads and fuses into integer kernels.
    NATIVE: QuantizeLinear and DequantizeLinear in the types of the learned widths (INT2, UINT2,
        INT4, UINT4, ...), for compilers that take them.
    TENSORRT: QuantizeLinear and DequantizeLinear in INT8 with zero point 0 and float biases, by
        TensorRT's rules for explicit quantization.
    QONNX: ``Quant`` nodes of the ``qonnx.custom_op.general`` domain, for FPGA flows.
    """

    ORT = "ort"
    NATIVE = "native"
    TENSORRT = "tensorrt"
    QONNX = "qonnx"


def written_form(model: ir.Model) -> Form | None:
    """The form in the metadata of a written model; ``None`` if there is none."""
    text = model.metadata_props.get(FORM_KEY)
    return Form(text) if text in {form.value for form in Form} else None
