"""Reads widths and cost from a quantized ONNX file."""

from onnx_cgmq.inspection.report import NodeReport, Report, TensorReport, inspect

__all__ = ["NodeReport", "Report", "TensorReport", "inspect"]
