"""Reads widths and cost from a quantized ONNX file."""

from onnx_cgmq.inspection.inspect_model import inspect
from onnx_cgmq.inspection.report import NodeReport, Report, TensorReport

__all__ = ["NodeReport", "Report", "TensorReport", "inspect"]
