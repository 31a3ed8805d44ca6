"""Reads widths and cost of a quantized model from its file."""

from onnx_cgmq.inspection.inspect_model import inspect
from onnx_cgmq.inspection.report import NodeReport, Report, TensorReport

__all__ = ["NodeReport", "Report", "TensorReport", "inspect"]
