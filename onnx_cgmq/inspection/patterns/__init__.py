"""Recognizes the ways in which tools write quantizers: one file for each way."""

from onnx_cgmq.inspection.patterns.dispatch import find_grid

__all__ = ["find_grid"]
